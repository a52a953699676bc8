//! Crashes, seen from outside: a service of its own process, a real broker, and a third party that
//! keeps the account. `INTERLINE_TEST_SOAK=1` makes the counts large.

mod ground;
mod load;
mod of_broker;
mod of_cluster;
mod of_kafka;
mod of_network;
mod of_redis;
mod of_service;
mod outside;
mod scene;
mod service;
mod topics;
mod trouble;

use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use interline_tests::harness::{self, Case, soak};

use crate::ground::Kind;
use crate::trouble::Outcome;

type Of = fn(Kind) -> LocalBoxFuture<'static, Outcome>;
type Own = fn() -> LocalBoxFuture<'static, Outcome>;

/// What every kind of broker has to bear.
const OF_ALL: &[(&str, Of)] = &[
    ("a_killed_service_loses_nothing", |kind| {
        Box::pin(of_service::killed(kind))
    }),
    ("a_killed_service_keeps_order", |kind| {
        Box::pin(of_service::killed_in_order(kind))
    }),
    (
        "a_service_killed_at_each_point_repeats_no_more_than_it_did",
        |kind| Box::pin(of_service::killed_at_each_point(kind)),
    ),
    ("a_terminated_service_does_nothing_twice", |kind| {
        Box::pin(of_service::terminated(kind))
    }),
    ("a_second_signal_ends_at_once", |kind| {
        Box::pin(of_service::terminated_twice(kind))
    }),
    ("a_killed_broker_loses_nothing", |kind| {
        Box::pin(of_broker::killed(kind))
    }),
    ("a_restarted_broker_loses_nothing", |kind| {
        Box::pin(of_broker::restarted(kind))
    }),
    ("a_frozen_server_loses_nothing", |kind| {
        Box::pin(of_broker::frozen(kind))
    }),
    ("members_that_come_and_go_lose_nothing", |kind| {
        Box::pin(of_service::members_change(kind))
    }),
    ("an_idle_minute_passes_without_an_error", |kind| {
        Box::pin(of_service::idle(kind))
    }),
];

/// What those have to bear whose clients tell of each fault of the network.
const OF_NETWORK: &[(&str, Of)] = &[
    ("a_cut_connection_loses_nothing", |kind| {
        Box::pin(of_network::cut(kind))
    }),
    ("a_stalled_connection_loses_nothing", |kind| {
        Box::pin(of_network::stalled(kind))
    }),
    ("a_black_holed_connection_loses_nothing", |kind| {
        Box::pin(of_network::black_holed(kind))
    }),
];

/// What only one kind can do.
const OF_ONE: &[(Kind, &str, Own)] = &[
    (
        Kind::Kafka,
        "a_killed_leader_of_three_servers_loses_nothing",
        || Box::pin(of_kafka::leader_killed()),
    ),
    (Kind::Kafka, "a_failing_network_loses_nothing", || {
        Box::pin(of_kafka::network_fails())
    }),
    (
        Kind::RabbitMq,
        "a_killed_leader_of_three_servers_loses_nothing",
        || Box::pin(of_cluster::leader_killed()),
    ),
    (
        Kind::RabbitMq,
        "a_killed_broker_keeps_messages_for_later",
        || Box::pin(of_broker::killed_with_scheduled()),
    ),
    (Kind::RabbitMq, "a_deleted_queue_is_made_again", || {
        Box::pin(of_broker::queue_deleted())
    }),
    (
        Kind::RabbitMq,
        "a_consumer_that_timed_out_comes_back",
        || Box::pin(of_broker::consumer_timed_out()),
    ),
    (
        Kind::RabbitMq,
        "closed_connections_do_not_raise_the_prefetch",
        || Box::pin(of_broker::connections_closed()),
    ),
    (Kind::Redis, "killed_clients_lose_nothing", || {
        Box::pin(of_redis::connections_closed())
    }),
    (Kind::Redis, "a_destroyed_group_loses_nothing", || {
        Box::pin(of_redis::group_destroyed())
    }),
    (
        Kind::Redis,
        "a_promoted_replica_loses_only_what_it_never_had",
        || Box::pin(of_redis::replica_promoted()),
    ),
];

fn main() -> ExitCode {
    let limit = Duration::from_secs(if soak() { 3_600 } else { 240 });
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        let of_network: &[_] = if kind == Kind::Kafka { &[] } else { OF_NETWORK };
        for &(name, case) in OF_ALL.iter().chain(of_network) {
            let name = format!("{}::{name}", kind.name());
            let case = Case::new(name, move || case(kind));
            cases.push(case.needs(kind.server()).limit(limit));
        }
    }
    for &(kind, name, case) in OF_ONE {
        let case = Case::new(format!("{}::{name}", kind.name()), case);
        cases.push(case.needs(kind.server()).limit(limit));
    }
    harness::run(cases)
}
