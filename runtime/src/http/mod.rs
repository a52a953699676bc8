//! Calling other services over HTTP.
//!
//! A trait with `#[service_client]` becomes a client: taken as `State<OrdersClient>`, or from
//! `running.client::<OrdersClient>()`. [`HttpClient`] makes calls without a trait in the same way.
//!
//! Around each call there is a limit on how many run, a circuit breaker of the service, and a deadline:
//! the least of what the call, the method, and the handler that makes it say. Within it, what may be
//! repeated is repeated after a failure, at an endpoint it has not been to, as long as the budget
//! allows. Each endpoint has a circuit breaker of its own and is chosen by how fast it has been, or as
//! `balance` says. One whose circuit is open is left alone, but never so many of them that the rest would
//! break down; where most are failing, all are called.
//!
//! Where a service is stands in `[services.NAME]`:
//!
//! ```toml
//! [services.orders]
//! urls = ["http://orders-1:8080", "http://orders-2:8080"]
//! timeout = "2s"
//! balance = "weighted"        # or p2c_ewma (default), round_robin, random, least_request, ring_hash, zone_aware
//! weights."http://orders-2:8080" = 3
//! slow_start = "10s"          # over which an endpoint that is new, or was left alone, gets its share
//! ejection.max_share = 0.5    # so many of the endpoints are left alone at once
//! ejection.panic = 0.5        # where fewer are healthy, all are called
//! ```

mod body;
mod cache;
mod call;
mod checks;
mod client;
mod context;
mod contradictions;
mod descriptor;
mod encode;
mod endpoints;
mod error;
mod events;
mod judge;
mod limits;
mod options;
mod places;
mod pool;
mod problem;
mod query;
mod read;
mod response;
mod retry_after;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod server;
mod services;
mod settings;
mod stack;
mod stream;
mod tls;
mod transport;
mod views;

pub use body::{AsBody, BodyStream};
pub use cache::CacheSettings;
pub use call::Call;
pub use client::{HttpClient, Wire};
pub use context::{RequestContext, carry};
pub use descriptor::{ClientDescriptor, MethodDescriptor, ServiceClient, Verb};
pub use error::{CallError, CallErrorKind, Sent};
pub use events::{Event, EventStream};
pub use judge::Judged;
pub use options::{CallOptions, CallSettings, RetrySettings};
pub use problem::Problem;
#[doc(hidden)]
pub use read::{Answered, Empty, Events, Full, Json, Maybe, Pieces, Raw, Read, Received};
pub use response::Response;
pub(crate) use services::{Judging, Services};
pub(crate) use stack::Surroundings;
pub use stream::ByteStream;
#[cfg(feature = "testing")]
pub(crate) use transport::stand_in::{Carried, Coming, StandIn, StandIns, Uncarried};
pub use views::ServiceEndpoint;
