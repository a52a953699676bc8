//! What the tests of Interline share: a harness for cases that need a real server, those servers,
//! a client of RabbitMQ's management API, a database of Redis, a part of a Kafka cluster, the ledger of
//! the crash tests, and the command line of the benches.

pub mod asked;
pub mod certificates;
pub mod harness;
pub mod kafka;
pub mod kafka_shares;
pub mod ledger;
pub mod management;
pub mod redis;
pub mod servers;
