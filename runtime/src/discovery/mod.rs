//! Where the instances of a service are.
//!
//! Whoever calls a service works on a whole [`EndpointSet`]; this room says what is in it.

mod endpoint;
mod static_list;

pub use endpoint::{Endpoint, EndpointSet};
pub(crate) use static_list::read as read_static_list;
