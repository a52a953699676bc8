//! What a broker does not promise: the only reason for which a case is not run on it.

use crate::bench::PLACES;

/// A case that does not hold on one kind of broker.
pub(crate) struct Exception {
    /// The case's name.
    case: &'static str,
    /// The kind of broker.
    kind: &'static str,
    /// Why, in the words of the table that users read.
    because: &'static str,
}

/// The kind of broker that delivers at most once, to everybody who listens.
const CHANNELS: &str = "redis-pubsub";

/// Every exception but those of Pub/Sub.
pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        case: "a_handler_reads_again_from_a_position",
        kind: "memory",
        because: NO_POSITION,
    },
    Exception {
        case: "a_handler_reads_again_from_a_position",
        kind: "rabbitmq",
        because: NO_POSITION,
    },
    Exception {
        case: "a_handler_reads_again_from_a_position",
        kind: "redis",
        because: NO_POSITION,
    },
    Exception {
        case: "nothing_begins_once_a_drain_has_begun",
        kind: "memory",
        because: HANDLED_FIRST,
    },
    Exception {
        case: "two_processes_take_turns_in_the_order_of_each_key",
        kind: "memory",
        because: HANDLED_FIRST,
    },
    Exception {
        case: "what_waits_in_a_lane_when_the_process_drains_keeps_its_place",
        kind: "memory",
        because: HANDLED_FIRST,
    },
    Exception {
        case: "routes_say_which_broker_a_topic_belongs_to",
        kind: "kafka",
        because: ONE_PREFIX,
    },
    Exception {
        case: "nothing_stays_in_the_hands_of_the_dead",
        kind: "redis",
        because: "what a dead process had stays its own until others take it over",
    },
    Exception {
        case: "no_more_are_fetched_than_twice_what_runs",
        kind: "kafka",
        because: "the server counts what is committed, and does not know what was fetched",
    },
    Exception {
        case: "a_template_gets_all_its_topics_with_their_segments",
        kind: "redis",
        because: ONE_NAME,
    },
    Exception {
        case: "segments_of_the_topic_are_arguments",
        kind: "redis",
        because: ONE_NAME,
    },
];

const NO_POSITION: &str =
    "a subscription has no position in what was handled, so it cannot be read again";

const ONE_NAME: &str = "a stream has one name; a template is refused when the app starts";

const ONE_PREFIX: &str = "a prefix is that of the app, so two brokers of one app are two servers";

const HANDLED_FIRST: &str =
    "what only this process holds would be gone with it, so a drain handles it first";

/// What does not hold on Redis Pub/Sub: each reason with its cases.
const ON_CHANNELS: &[(&str, &[&str])] = &[
    (
        "a message is delivered at most once: no attempt is repeated, and nothing is kept",
        &[
            "a_batch_that_fails_as_a_whole_is_tried_again_as_a_whole",
            "a_batch_that_waits_when_the_process_drains_keeps_its_count",
            "a_breaker_stops_fetching_and_tries_one_at_a_time",
            "a_failing_batch_behind_a_breaker_is_given_up_after_its_attempts",
            "a_failure_has_the_fate_that_its_type_says",
            "a_hanging_handler_is_a_failed_attempt_and_is_told",
            "a_long_wait_is_a_rung_of_the_ladder",
            "a_panic_is_a_failed_attempt_and_nothing_more",
            "a_retry_comes_to_its_own_subscription_only",
            "a_retry_that_waits_when_the_process_drains_keeps_its_count",
            "a_short_wait_does_not_wait_behind_a_long_one",
            "a_template_gets_all_its_topics_with_their_segments",
            "an_argument_that_is_missing_is_a_dead_letter_that_says_which",
            "an_enum_takes_several_types",
            "an_output_that_nobody_listens_to_is_a_failed_attempt",
            "an_unknown_type_is_kept_or_skipped_as_the_subscriber_says",
            "attempts_are_counted_and_end_as_a_dead_letter",
            "each_fate_does_what_it_says",
            "each_message_of_a_batch_has_its_own_fate",
            "every_attempt_sees_the_message_as_it_was",
            "handlers_of_several_types_share_a_subscription",
            "manual_settlement_is_whenever_the_handler_says",
            "middleware_runs_around_handlers_and_publishes",
            "order_within_a_process_is_kept_too",
            "what_cannot_be_read_is_kept_and_never_handled",
            "what_is_given_up_is_kept_as_it_was",
            "what_is_newer_is_read_if_it_can_be_and_kept_if_not",
            "what_was_acknowledged_on_receipt_is_tried_again_in_the_process",
            "what_was_given_up_without_a_retry_is_sent_back",
        ],
    ),
    (
        "a channel is there while somebody listens: nothing waits on the server for who comes later",
        &[
            "a_drain_finishes_what_runs_and_gives_back_the_rest",
            "a_paused_subscriber_fetches_nothing_until_it_resumes",
            "a_redeploy_with_other_options_keeps_what_is_in_the_queue",
            "a_repeat_after_a_crash_has_the_same_output_ids",
            "no_more_are_fetched_than_twice_what_runs",
            "nothing_begins_once_a_drain_has_begun",
            "nothing_stays_in_the_hands_of_the_dead",
            "what_a_dead_process_had_in_hand_is_handled_by_the_next",
            "what_is_missing_under_verify_is_told",
            "work_that_is_published_while_nobody_runs_is_kept",
        ],
    ),
    (
        "every instance gets every message, whatever its group, so no order holds across instances",
        &[
            "a_breaker_keeps_the_order_of_each_key",
            "a_breaker_keeps_the_order_of_each_key_in_batches",
            "a_failing_message_holds_up_its_own_key_only",
            "a_group_shares_and_each_group_gets_everything",
            "a_pause_by_hand_keeps_the_order_of_each_key",
            "a_pause_by_hand_keeps_the_order_of_each_key_in_batches",
            "a_pause_that_a_handler_asks_for_keeps_the_order_of_each_key",
            "a_pause_that_a_handler_asks_for_keeps_the_order_of_each_key_in_batches",
            "keys_are_spread_over_lanes",
            "the_order_of_each_key_outlives_a_crash",
            "two_processes_take_turns_in_the_order_of_each_key",
            "what_waits_in_a_lane_when_the_process_drains_keeps_its_place",
        ],
    ),
    (ONE_PREFIX, &["routes_say_which_broker_a_topic_belongs_to"]),
    (NO_POSITION, &["a_handler_reads_again_from_a_position"]),
];

/// Why a case is not run on a kind of broker; `None` where it is run.
pub(crate) fn because(case: &str, kind: &str) -> Option<&'static str> {
    if kind == CHANNELS {
        let found = ON_CHANNELS.iter().find(|(_, cases)| cases.contains(&case));
        return found.map(|(because, _)| *because);
    }
    let of = |exception: &&Exception| exception.case == case && exception.kind == kind;
    EXCEPTIONS.iter().find(of).map(|found| found.because)
}

/// An exception for a case or a broker that is not there would hide that one was renamed.
pub(crate) fn check(cases: &[&str]) {
    let channels = ON_CHANNELS.iter().flat_map(|(_, cases)| *cases);
    let channels = channels.map(|case| (*case, CHANNELS));
    let named = EXCEPTIONS.iter().map(|found| (found.case, found.kind));
    for (case, kind) in named.chain(channels) {
        assert!(cases.contains(&case), "there is no case `{case}` to except");
        let known = PLACES.iter().any(|place| place.kind == kind);
        assert!(known, "there is no broker `{kind}` to except `{case}` on");
    }
}
