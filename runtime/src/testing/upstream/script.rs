//! What is answered to which request.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::answer::Answer;
use super::request::UpstreamRequest;
use super::route::{Named, Route};

/// The answers of one instance, or those that all of them have.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Each is given once, in order.
    next: VecDeque<(Route, Answer)>,
    standing: Vec<(Route, Respond)>,
}

/// What is answered to every request of a route.
#[derive(Clone)]
pub(super) enum Respond {
    Always(Answer),
    By(Arc<dyn Fn(&UpstreamRequest) -> Answer + Send + Sync>),
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(answer) => answer.fmt(f),
            Self::By(_) => f.write_str("by a function"),
        }
    }
}

impl Script {
    pub(super) fn add_next(&mut self, route: &Route, answers: impl IntoIterator<Item = Answer>) {
        let answers = answers.into_iter().map(|answer| (route.clone(), answer));
        self.next.extend(answers);
    }

    pub(super) fn stand(&mut self, route: Route, respond: Respond) {
        self.standing.push((route, respond));
    }

    /// Takes the next answer that is given once.
    pub(super) fn take_next(
        &mut self,
        method: &Method,
        path: &str,
        is_check: bool,
    ) -> Option<(Named, Respond)> {
        let mut all = self.next.iter().enumerate();
        let found = all.find_map(|(at, (route, _))| {
            // How often health is asked for is nothing that a test of calls counts on.
            let counts = !is_check || route.names_a_path();
            Some((at, route.matches(method, path).filter(|_| counts)?))
        });
        let (at, named) = found?;
        let (_, answer) = self.next.remove(at)?;
        Some((named, Respond::Always(answer)))
    }

    /// What is answered otherwise: by the route that was said last.
    pub(super) fn standing(&self, method: &Method, path: &str) -> Option<(Named, Respond)> {
        let mut latest = self.standing.iter().rev();
        latest.find_map(|(route, respond)| Some((route.matches(method, path)?, respond.clone())))
    }
}
