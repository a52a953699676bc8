//! Crashes, seen from outside: a service of its own process, a real broker, and a third party that
//! keeps the account. `INTERLINE_TEST_SOAK=1` makes the counts large.

mod kafka;
mod load;
mod of_broker;
mod of_network;
mod of_service;
mod outside;
mod scene;
mod service;
mod trouble;

use std::process::ExitCode;
use std::time::Duration;

use interline_tests::harness::{self, Case, soak};
use interline_tests::servers::Server;

fn main() -> ExitCode {
    let cases = [
        Case::new("a_killed_service_loses_nothing", of_service::killed),
        Case::new("a_killed_service_keeps_order", of_service::killed_in_order),
        Case::new(
            "a_service_killed_at_each_point_repeats_no_more_than_it_did",
            of_service::killed_at_each_point,
        ),
        Case::new(
            "a_terminated_service_does_nothing_twice",
            of_service::terminated,
        ),
        Case::new("a_killed_broker_loses_nothing", of_broker::killed),
        Case::new("a_restarted_broker_loses_nothing", of_broker::restarted),
        Case::new(
            "a_killed_broker_keeps_messages_for_later",
            of_broker::killed_with_scheduled,
        ),
        Case::new("a_deleted_queue_is_made_again", of_broker::queue_deleted),
        Case::new(
            "a_consumer_that_timed_out_comes_back",
            of_broker::consumer_timed_out,
        ),
        Case::new(
            "closed_connections_do_not_raise_the_prefetch",
            of_broker::connections_closed,
        ),
        Case::new("a_cut_connection_loses_nothing", of_network::cut),
        Case::new("a_stalled_connection_loses_nothing", of_network::stalled),
        Case::new(
            "a_black_holed_connection_loses_nothing",
            of_network::black_holed,
        ),
        Case::new("a_second_signal_ends_at_once", of_service::terminated_twice),
    ];
    let on_kafka = [
        Case::new(
            "kafka::a_killed_service_loses_nothing",
            kafka::service_killed,
        ),
        Case::new(
            "kafka::members_that_come_and_go_lose_nothing",
            kafka::members_come_and_go,
        ),
        Case::new("kafka::a_killed_server_loses_nothing", kafka::server_killed),
        Case::new("kafka::a_frozen_server_loses_nothing", kafka::server_frozen),
        Case::new(
            "kafka::a_failing_network_loses_nothing",
            kafka::network_fails,
        ),
    ];
    let limit = Duration::from_secs(if soak() { 3_600 } else { 240 });
    let cases = cases.into_iter().map(|case| case.needs(Server::RabbitMq));
    let on_kafka = on_kafka.into_iter().map(|case| case.needs(Server::Kafka));
    harness::run(cases.chain(on_kafka).map(|case| case.limit(limit)))
}
