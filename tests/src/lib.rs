//! What the tests of Interline share: a harness for cases that need a real server, those servers,
//! and a client of RabbitMQ's management API.

pub mod harness;
pub mod management;
pub mod servers;
