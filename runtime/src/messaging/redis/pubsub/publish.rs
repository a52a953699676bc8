//! Publishing to a channel: the server's answer says how many listened.

use redis::Value;

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::Outgoing;

use super::super::core::Core;
use super::super::publish::{identified, publish_error};
use super::wire;

/// Publishes to the channel of its topic, with its headers before the body or without them.
pub(in super::super) async fn to_channel(
    core: &Core,
    heads: bool,
    outgoing: Outgoing,
) -> Result<(), PublishError> {
    let channel = match &outgoing.redis.stream {
        Some(channel) => channel.to_string(),
        None => core.stream_of(&outgoing.topic),
    };
    let Some(live) = core.wait_until_up().await else {
        return Err(core.not_up(&outgoing));
    };
    let mut command = redis::cmd("PUBLISH");
    command.arg(&channel);
    if heads {
        command.arg(wire::write(&outgoing.body, &identified(&outgoing)));
    } else {
        command.arg(&outgoing.body[..]);
    }
    let what = format!("channel `{channel}`");
    match live.publish.raw(&what, &command).await {
        Ok(Value::Int(0)) if !outgoing.subscribers_optional => {
            let message = format!("nobody listens to channel `{channel}` at the moment");
            let topic = outgoing.topic.clone();
            let error = PublishError::new(PublishErrorKind::Unroutable, topic, message);
            Err(error.with_outgoing(outgoing))
        }
        Ok(_) => Ok(()),
        Err(failure) => Err(publish_error(failure, &outgoing)),
    }
}
