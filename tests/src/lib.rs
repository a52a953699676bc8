//! What the tests of Interline share: a harness for cases that need a real server, those servers,
//! a client of RabbitMQ's management API, and the ledger of the crash tests.

pub mod harness;
pub mod ledger;
pub mod management;
pub mod servers;
