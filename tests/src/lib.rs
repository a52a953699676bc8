//! What the tests of Interline share: a harness for cases that need a real server, those servers,
//! a client of RabbitMQ's management API, a database of Redis, and the ledger of the crash tests.

pub mod certificates;
pub mod harness;
pub mod ledger;
pub mod management;
pub mod redis;
pub mod servers;
