//! One instance of an upstream.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::discovery::Endpoint;

use super::super::app::lock;
use super::answer::Answer;
use super::carrier::Lost;
use super::request::UpstreamRequest;
use super::route::Route;
use super::script::{Respond, Script};
use super::{Shared, Upstream};

/// What is known of an instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) endpoint: Endpoint,
    pub(super) authority: String,
    pub(super) script: Mutex<Script>,
    pub(super) state: Mutex<State>,
    /// Counts how often it was stopped.
    ends: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) is_listed: bool,
    pub(super) takes: Takes,
    pub(super) latency: Duration,
}

/// What becomes of new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// They are answered.
    All,
    /// They are given back.
    NoMore,
    /// There is nobody.
    Nothing,
}

/// An instance for as long as it is not stopped. A clone has missed as much as the original.
#[derive(Clone)]
pub(super) struct Life(watch::Receiver<u64>);

impl Life {
    /// Waits for its end.
    pub(super) async fn lost(&mut self) -> Lost {
        // Without a sender nobody stops it any more.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Lost("connection reset by the instance, which was stopped".to_owned())
    }
}

impl Instance {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            authority: endpoint.authority(),
            endpoint,
            script: Mutex::default(),
            state: Mutex::new(State {
                is_listed: true,
                takes: Takes::All,
                latency: Duration::ZERO,
            }),
            ends: watch::Sender::new(0),
        }
    }

    pub(super) fn life(&self) -> Life {
        Life(self.ends.subscribe())
    }

    /// Its name in a timeline.
    pub(super) fn name(&self) -> &str {
        let url = self.endpoint.url();
        url.split_once("://").map_or(url, |(_, name)| name)
    }
}

/// One instance of an [`Upstream`]. Cheap to clone; every clone is the same one.
///
/// ```
/// # use std::time::Duration;
/// # use interline::testing::{Answer, Upstream};
/// let stock = Upstream::new("stock");
/// stock.answer("GET /items/{id}", Answer::json(&7));
/// let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
/// two.next("GET /items/{id}", [Answer::reset(), Answer::status(503)]);
/// one.slow(Duration::from_secs(2));
/// // And while the app runs:
/// one.leave();   // discovery names it no more
/// two.stop();    // nobody is there any more
/// two.start();
/// ```
#[derive(Clone)]
pub struct UpstreamInstance {
    upstream: Arc<Shared>,
    instance: Arc<Instance>,
}

impl UpstreamInstance {
    pub(super) fn new(upstream: &Arc<Shared>, instance: &Arc<Instance>) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            instance: Arc::clone(instance),
        }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.instance.endpoint.url()
    }

    /// Answers every request of this route so, here; see [`Upstream::answer`].
    ///
    /// # Panics
    /// As [`Upstream::answer`].
    #[track_caller]
    pub fn answer(&self, route: &str, answer: Answer) -> &Self {
        let route = Route::parse(route);
        lock(&self.instance.script).stand(route, Respond::Always(answer));
        self
    }

    /// Answers every request of this route as `respond` says, here; see [`Upstream::answer_with`].
    ///
    /// # Panics
    /// As [`Upstream::answer`].
    #[track_caller]
    pub fn answer_with(
        &self,
        route: &str,
        respond: impl Fn(&UpstreamRequest) -> Answer + Send + Sync + 'static,
    ) -> &Self {
        let route = Route::parse(route);
        lock(&self.instance.script).stand(route, Respond::By(Arc::new(respond)));
        self
    }

    /// Gives each of these answers once, here, before those of the whole upstream; see
    /// [`Upstream::next`].
    ///
    /// # Panics
    /// As [`Upstream::answer`].
    #[track_caller]
    pub fn next(&self, route: &str, answers: impl IntoIterator<Item = Answer>) -> &Self {
        let route = Route::parse(route);
        lock(&self.instance.script).add_next(&route, answers);
        self
    }

    /// Does everything so much later.
    pub fn slow(&self, wait: Duration) -> &Self {
        lock(&self.instance.state).latency = wait;
        self
    }

    /// Discovery names it no more. It goes on to answer whoever calls it.
    pub fn leave(&self) {
        self.change(|state| state.is_listed = false);
    }

    /// Goes down in order: discovery names it no more, what is under way is answered, what is new is given
    /// back, and it says that it is not healthy.
    pub fn drain(&self) {
        self.change(|state| {
            state.is_listed = false;
            state.takes = Takes::NoMore;
        });
    }

    /// Dies: what is under way is lost, and there are no connections any more. Nobody tells discovery.
    pub fn stop(&self) {
        lock(&self.instance.state).takes = Takes::Nothing;
        self.instance.ends.send_modify(|ends| *ends += 1);
    }

    /// Is there again after [`leave`](Self::leave), [`drain`](Self::drain) or [`stop`](Self::stop), and
    /// discovery names it.
    pub fn start(&self) {
        self.change(|state| {
            state.is_listed = true;
            state.takes = Takes::All;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.instance.state));
        self.upstream.tell();
    }

    /// The requests that it got, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<UpstreamRequest> {
        let mut all = Upstream(Arc::clone(&self.upstream)).requests();
        all.retain(|request| request.instance() == self.url());
        all
    }
}

impl fmt::Debug for UpstreamInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamInstance")
            .field("url", &self.url())
            .field("state", &lock(&self.instance.state))
            .finish_non_exhaustive()
    }
}
