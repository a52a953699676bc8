//! Where the instances of a service are.
//!
//! A backend is a [`Discovery`]: it follows a service and tells whole answers to a [`Feed`]. What several
//! backends say of one service is joined into a whole [`EndpointSet`], which whoever calls the service
//! works on. An error never makes a set smaller: what was said last stays, and health and log tell it.
//!
//! ```toml
//! [discovery.local]
//! kind = "file"
//! path = "endpoints.toml"
//!
//! [services.orders.discovery]
//! backends = ["local"]
//! only = { tags = ["blue"], version = ">=1.4, <2" }
//! ```
//!
//! Which services are looked for, and how:
//!
//! | key of `[services.NAME.discovery]` | default | |
//! |---|---|---|
//! | `backends` | the only one in `[discovery]` | whom to ask, the most trusted first; `urls` of the service, if there are any, stand behind them |
//! | `merge` | `failover` | the first that knows an endpoint, or the `union` of all |
//! | `name` | the service's | what the service is called there |
//! | `patience` | `10s` | how long a backend must say, and say nothing else, that there is nothing any more, or fail while another one answers, before that changes anything |
//! | `first_answer` | `5s` | how long a call may wait for the first answer |
//! | `only.tags`, `only.zones` | all | instances that have all of the tags; that are in one of the zones |
//! | `only.version` | any | instances whose version fits, such as `">=1.4, <2"` |
//! | `only.metadata.KEY` | any | instances that say this about that key |
//!
//! `[discovery] cache` names a directory in which what is known of each service is kept, for a start while
//! nobody answers; several programs can share it. A first answer without an endpoint is then believed only
//! after `patience`, too. Every section below `[discovery]` is a backend of a `kind`, and
//! [`App::discovery`](crate::App::discovery) adds others:
//!
//! - `file`: a TOML or JSON file with services and their endpoints (`path`, `poll`). Another file that is
//!   renamed to its name takes effect at once; a broken one changes nothing.
//! - `dns` (feature `dns`): address records with a `port`, or `records = "srv"`; `name` with `{service}` in
//!   it, `servers`, `scheme`, `timeout`. Answers are asked for again when their time to live is over, within
//!   `ttl_min` and `ttl_max`. SRV records say weights and priorities, too: what has a later one stands by. That a name does not exist is an answer; a server that fails gives none.
//!
//! - `directory`: a directory that the programs of one machine have in common, with a file for each
//!   instance (`path`, `ttl`, `poll`): it finds what was registered there.
//!
//! A program registers itself where `[registration] url` says where it can be called:
//!
//! | key of `[registration]` | default | |
//! |---|---|---|
//! | `url` | must be given | the address of this instance, for others |
//! | `backends` | all that can | where it is registered |
//! | `propagation` | `2s` | how long it still serves after it was taken away |
//! | `zone`, `tags`, `metadata.KEY` | none | what others are to know of it |
//! | `version` | that of the package | |
//!
//! It is registered when it is ready and taken away when it goes down, before anything is drained.
//!
//! ```toml
//! [discovery.cluster]
//! kind = "dns"
//! name = "{service}.prod.svc.cluster.local."
//! port = 8080
//! ```
//!
//! The metrics `interline.discovery.duration`, `.endpoints` and `.age` and
//! [`Health::services`](crate::Health::services) tell how it is.

mod cache;
mod directory;
#[cfg(feature = "dns")]
mod dns;
mod document;
mod endpoint;
mod feed;
mod file;
mod filter;
mod following;
mod manager;
mod merge;
mod own;
mod port;
mod reach;
mod registrar;
mod registration;
mod settings;
#[cfg(feature = "testing")]
mod stand_in;
mod static_list;
mod status;

pub(crate) use endpoint::host_name;
pub use endpoint::{Endpoint, EndpointSet};
pub use feed::{Asking, Feed};
pub use manager::{EndpointCheck, ServiceDiscoveryManager};
pub use port::{Discovery, Following, Query};
pub use registrar::{Registering, Registrar, RegistrarError, ServiceInstance};
pub use registration::{RegistrationState, RegistrationStatus};
pub use status::{DiscoveryStatus, SourceStatus};

pub(crate) use following::ServiceWatch;
pub(crate) use own::Registrations;
pub(crate) use reach::{Examine, Examining, reach};
pub(crate) use registration::Registration;
pub(crate) use settings::{Backends, Whereabouts};
