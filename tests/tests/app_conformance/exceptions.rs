//! What a broker does not promise: the only reason for which a case is not run on it.

use crate::bench::PLACES;

/// A case that does not hold on one kind of broker.
pub(crate) struct Exception {
    /// The case's name.
    case: &'static str,
    /// The kind of broker.
    kind: &'static str,
    /// Why, in the words of the table that users read.
    #[expect(dead_code, reason = "for whoever reads the table")]
    because: &'static str,
}

/// Every exception there is.
pub(crate) const EXCEPTIONS: &[Exception] = &[
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
        because: "a prefix is that of the app, so two brokers of one app are two clusters",
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

const ONE_NAME: &str = "a stream has one name; a template is refused when the app starts";

const HANDLED_FIRST: &str =
    "what only this process holds would be gone with it, so a drain handles it first";

/// Whether a case is not run on a kind of broker.
pub(crate) fn excepted(case: &str, kind: &str) -> bool {
    EXCEPTIONS
        .iter()
        .any(|exception| exception.case == case && exception.kind == kind)
}

/// An exception for a case or a broker that is not there would hide that one was renamed.
pub(crate) fn check(cases: &[&str]) {
    for Exception { case, kind, .. } in EXCEPTIONS {
        assert!(cases.contains(case), "there is no case `{case}` to except");
        let known = PLACES.iter().any(|place| place.kind == *kind);
        assert!(known, "there is no broker `{kind}` to except `{case}` on");
    }
}
