//! What Redis Pub/Sub does not promise: the only reasons for which a case is not run on it.

use crate::world::CaseFn;

/// Each reason with its cases.
pub(crate) const ON_CHANNELS: &[(&str, &[&str])] = &[
    (
        "every delivery is at most once: nothing is kept, given back or tried again",
        &[
            "a_dead_letter_is_the_original_with_its_headers",
            "a_lost_connection_hands_out_again_what_was_not_settled",
            "a_redrive_that_is_cut_short_loses_nothing",
            "a_request_that_was_retried_still_knows_where_to_answer",
            "a_retry_comes_back_after_its_time_to_its_own_subscription",
            "a_retry_outlives_the_process",
            "a_short_retry_does_not_wait_behind_a_long_one",
            "a_stopped_consumer_leaves_the_rest_to_others",
            "dead_letters_are_purged_by_choice",
            "dead_letters_are_sent_back_once",
            "headers_of_every_type_arrive_and_survive_a_retry",
            "many_dead_letters_are_sent_back_once_each",
            "nothing_is_kept_where_dead_letters_are_off",
            "the_loss_of_the_connection_ends_the_wait_and_the_next_request_is_answered",
            "what_is_out_when_a_process_ends_goes_to_the_next",
            "what_is_released_comes_again_untouched",
        ],
    ),
    (
        "a channel is there while somebody listens: nothing is published before, and nothing can be missing",
        &[
            "a_redeploy_with_other_settings_changes_nothing",
            "a_subscription_misses_nothing_from_when_it_is_applied",
            "no_more_than_the_prefetch_is_out",
            "what_is_missing_is_told_by_verify",
        ],
    ),
    (
        "every instance gets every message, whatever its group",
        &[
            "a_group_shares_and_each_group_gets_every_message",
            "a_paused_reader_of_what_is_ordered_is_not_passed",
            "one_instance_at_a_time_reads_what_is_ordered_by_key",
            "what_is_ordered_goes_to_the_next_reader_in_its_order",
        ],
    ),
    (
        "a pattern of the server also fits longer topics, so a publish to one counts as heard",
        &["a_pattern_gets_all_its_topics_and_only_those"],
    ),
];

/// Whether a case is not run on channels.
pub(crate) fn on_channels(case: &str) -> bool {
    let mut cases = ON_CHANNELS.iter().flat_map(|(_, cases)| *cases);
    cases.any(|excepted| *excepted == case)
}

/// An exception for a case that is not there would hide that one was renamed.
pub(crate) fn check(cases: &[&[(&str, CaseFn)]]) {
    for (_, excepted) in ON_CHANNELS {
        for case in *excepted {
            let mut names = cases.iter().copied().flatten().map(|(name, _)| name);
            assert!(
                names.any(|name| name == case),
                "there is no case `{case}` to except"
            );
        }
    }
}
