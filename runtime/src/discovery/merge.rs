//! What several backends say, made into one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::EndpointSet;

/// How what several backends say becomes one set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Merge {
    /// The first that answers and knows an endpoint.
    #[default]
    Failover,
    /// All that any of them knows; of an address that two know, the first one's word counts.
    Union,
}

impl Merge {
    pub(super) const NAMES: &'static [&'static str] = &["failover", "union"];

    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "failover" => Some(Self::Failover),
            "union" => Some(Self::Union),
            _ => None,
        }
    }
}

/// What one backend has said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The last answer that is believed.
    pub(super) good: Option<Arc<EndpointSet>>,
    /// When it answered last.
    pub(super) answered: Option<Instant>,
    /// Since when it does not answer, and why.
    pub(super) failing: Option<(Instant, String)>,
    /// How many of the endpoints in its last answer are not called.
    pub(super) left_out: usize,
    /// Whether it said last that there is nothing any more, and that is not believed yet.
    says_nothing: bool,
    /// Since when it has said that, and nothing else.
    empty_since: Option<Instant>,
}

impl Said {
    /// An answer; `instead` says that endpoints of another time are called as long as nobody answers.
    pub(super) fn answer(&mut self, set: EndpointSet, instead: bool, now: Instant) {
        self.failing = None;
        self.answered = Some(now);
        let knew = match &self.good {
            Some(good) => !good.is_empty(),
            None => instead || self.says_nothing,
        };
        self.says_nothing = set.is_empty() && knew;
        if self.says_nothing {
            // A registry that lost its data looks like this, too.
            self.empty_since.get_or_insert(now);
        } else {
            self.empty_since = None;
            if self.good.as_deref() != Some(&set) {
                self.good = Some(Arc::new(set));
            }
        }
    }

    /// What was answered last is said again.
    pub(super) fn repeat(&mut self, now: Instant) {
        if self.good.is_none() && !self.says_nothing {
            return;
        }
        self.failing = None;
        self.answered = Some(now);
        if self.says_nothing {
            self.empty_since.get_or_insert(now);
        }
    }

    pub(super) fn fail(&mut self, why: String, now: Instant) {
        // That there is nothing has to be said for all of the time.
        self.empty_since = None;
        let since = self.failing.take().map_or(now, |(since, _)| since);
        self.failing = Some((since, why));
    }

    /// Believes what has been said for long enough.
    fn believe(&mut self, patience: Duration, now: Instant) {
        if self
            .empty_since
            .is_some_and(|since| since + patience <= now)
        {
            self.empty_since = None;
            self.says_nothing = false;
            self.good = Some(Arc::default());
        }
    }

    fn good_set(&self) -> &[super::Endpoint] {
        self.good.as_deref().map_or(&[], EndpointSet::as_slice)
    }

    fn has_failed_for_long(&self, patience: Duration, now: Instant) -> bool {
        let failing = self.failing.as_ref();
        failing.is_some_and(|(since, _)| *since + patience <= now)
    }

    /// When time alone changes something.
    fn next(&self, patience: Duration, now: Instant) -> Option<Instant> {
        let failing = self.failing.as_ref().map(|(since, _)| *since);
        let moments = [self.empty_since, failing].into_iter().flatten();
        let moments = moments.map(|since| since + patience);
        moments.filter(|moment| *moment > now).min()
    }
}

/// What was made of what all have said.
pub(super) struct Merged {
    pub(super) set: Arc<EndpointSet>,
    /// Whether it is an answer, if only that there is nothing.
    pub(super) resolved: bool,
    /// When time alone may change it.
    pub(super) next: Option<Instant>,
}

/// Makes one set of what all have said. An answer without endpoints after one with, and a backend that
/// fails while another one answers, are waited out for `patience`.
pub(super) fn merge<'s>(
    said: impl Iterator<Item = &'s mut Said>,
    how: Merge,
    patience: Duration,
    now: Instant,
) -> Merged {
    let mut all: Vec<&mut Said> = said.collect();
    for one in &mut all {
        one.believe(patience, now);
    }
    let known = |one: &&&mut Said| !one.good_set().is_empty();
    let set = match how {
        Merge::Failover => {
            let answering =
                |one: &&&mut Said| known(one) && !one.has_failed_for_long(patience, now);
            let chosen = all
                .iter()
                .find(answering)
                .or_else(|| all.iter().find(known));
            chosen.and_then(|one| one.good.clone()).unwrap_or_default()
        }
        Merge::Union => {
            let mut with_something = all.iter().filter(known);
            match (with_something.next(), with_something.next()) {
                (None, _) => Arc::default(),
                (Some(only), None) => only.good.clone().unwrap_or_default(),
                _ => {
                    let endpoints = all.iter().flat_map(|one| one.good_set());
                    Arc::new(endpoints.cloned().collect())
                }
            }
        }
    };
    Merged {
        resolved: !set.is_empty() || all.iter().all(|one| one.good.is_some()),
        next: all.iter().filter_map(|one| one.next(patience, now)).min(),
        set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Endpoint;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn set(hosts: &[&str]) -> EndpointSet {
        let urls = hosts.iter().map(|host| format!("http://{host}:1"));
        urls.map(|url| Endpoint::parse(&url).unwrap()).collect()
    }

    fn merged(said: &mut [Said], how: Merge, now: Instant) -> Merged {
        merge(said.iter_mut(), how, PATIENCE, now)
    }

    fn say(said: &mut Said, urls: &[&str], now: Instant) {
        said.answer(set(urls), false, now);
    }

    #[test]
    fn nothing_is_believed_only_after_a_while() {
        let begun = Instant::now();
        let mut said = [Said::default()];
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!merged(&mut said, Merge::Failover, begun).resolved);
        say(&mut said[0], &["a", "b"], begun);
        say(&mut said[0], &[], at(1));
        say(&mut said[0], &[], at(10));
        let held = merged(&mut said, Merge::Failover, at(10));
        assert_eq!((&*held.set, held.next), (&set(&["a", "b"]), Some(at(11))));
        // An endpoint that comes back in time ends the wait.
        say(&mut said[0], &["b"], at(10));
        assert_eq!(merged(&mut said, Merge::Failover, at(12)).set.len(), 1);
        say(&mut said[0], &[], at(12));
        assert_eq!(merged(&mut said, Merge::Failover, at(21)).set.len(), 1);
        let gone = merged(&mut said, Merge::Failover, at(22));
        assert!(gone.set.is_empty() && gone.resolved && gone.next.is_none());
    }

    #[test]
    fn nothing_has_to_be_said_for_all_of_the_time() {
        let begun = Instant::now();
        let mut said = [Said::default()];
        let at = |seconds| begun + Duration::from_secs(seconds);
        say(&mut said[0], &["a"], begun);
        say(&mut said[0], &[], at(1));
        for second in 2..60 {
            said[0].fail("down".to_owned(), at(second));
        }
        let kept = merged(&mut said, Merge::Failover, at(60));
        assert_eq!(*kept.set, set(&["a"]));
        // It answers again, and the time begins anew.
        said[0].repeat(at(61));
        let kept = merged(&mut said, Merge::Failover, at(70));
        assert_eq!((&*kept.set, kept.next), (&set(&["a"]), Some(at(71))));
        assert!(merged(&mut said, Merge::Failover, at(71)).set.is_empty());
    }

    #[test]
    fn a_first_answer_without_endpoints_is_doubted_where_others_are_called() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut said = [Said::default()];
        said[0].fail("down".to_owned(), begun);
        said[0].answer(set(&[]), true, at(1));
        let doubted = merged(&mut said, Merge::Failover, at(1));
        assert!(!doubted.resolved);
        assert_eq!(doubted.next, Some(at(11)));
        said[0].answer(set(&[]), true, at(10));
        assert!(!merged(&mut said, Merge::Failover, at(10)).resolved);
        let gone = merged(&mut said, Merge::Failover, at(11));
        assert!(gone.resolved && gone.set.is_empty());
        // What comes in time is what counts.
        let mut said = [Said::default()];
        said[0].answer(set(&[]), true, begun);
        say(&mut said[0], &["a"], at(1));
        let found = merged(&mut said, Merge::Failover, at(20));
        assert_eq!((&*found.set, found.next), (&set(&["a"]), None));
    }

    #[test]
    fn a_first_answer_without_endpoints_is_an_answer() {
        let now = Instant::now();
        let mut said = [Said::default(), Said::default()];
        say(&mut said[0], &[], now);
        assert!(!merged(&mut said, Merge::Failover, now).resolved);
        said[1].fail("no route".to_owned(), now);
        assert!(!merged(&mut said, Merge::Failover, now).resolved);
        say(&mut said[1], &["b"], now);
        assert_eq!(*merged(&mut said, Merge::Failover, now).set, set(&["b"]));
    }

    #[test]
    fn another_backend_steps_in_for_one_that_fails_for_long() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut said = [Said::default(), Said::default()];
        say(&mut said[0], &["a"], begun);
        say(&mut said[1], &["b"], begun);
        said[0].fail("down".to_owned(), at(1));
        said[0].fail("still down".to_owned(), at(9));
        let kept = merged(&mut said, Merge::Failover, at(10));
        assert_eq!((&*kept.set, kept.next), (&set(&["a"]), Some(at(11))));
        assert_eq!(*merged(&mut said, Merge::Failover, at(11)).set, set(&["b"]));
        // Where all fail, what the first one said last is still the best there is.
        said[1].fail("down, too".to_owned(), at(12));
        assert_eq!(*merged(&mut said, Merge::Failover, at(60)).set, set(&["a"]));
        say(&mut said[0], &["a"], at(61));
        assert_eq!(*merged(&mut said, Merge::Failover, at(61)).set, set(&["a"]));
    }

    #[test]
    fn a_union_keeps_what_a_failing_backend_said() {
        let begun = Instant::now();
        let mut said = [Said::default(), Said::default(), Said::default()];
        say(&mut said[0], &["a", "b"], begun);
        say(&mut said[1], &["b", "c"], begun);
        said[0].fail("down".to_owned(), begun);
        let later = begun + Duration::from_secs(3_600);
        let all = merged(&mut said, Merge::Union, later);
        assert_eq!(*all.set, set(&["a", "b", "c"]));
        say(&mut said[1], &[], later);
        let all = merged(&mut said, Merge::Union, later + PATIENCE);
        assert_eq!(*all.set, set(&["a", "b"]));
    }
}
