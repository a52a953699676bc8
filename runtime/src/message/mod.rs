//! Messages: contract, envelope, headers, identity, topics and codecs.

mod codec;
mod contract;
mod envelope;
pub mod headers;
mod id;
mod text;
mod topic;

pub use codec::{Codec, CodecError, CodecRef, Codecs, Encoded, Encoder, Slot, Value};
pub use contract::{AnsweredBy, Contract, Keyed, Location, Message, Request};
pub use envelope::{
    Incoming, KafkaPublish, Origin, Outgoing, Place, RabbitMqPublish, RedisPublish, ReplyAddress,
};
pub(crate) use envelope::{format_time, parse_time};
pub use headers::{HeaderValue, Headers};
pub use id::{MESSAGE_ID_BYTES_MAX, MessageId};
pub use text::Text;
pub(crate) use topic::render as render_topic;
pub use topic::{TOPIC_BYTES_MAX, TopicError, TopicPattern, check as check_topic, check_template};
#[doc(hidden)]
pub use topic::{TopicFlaw, flaw as topic_flaw};
