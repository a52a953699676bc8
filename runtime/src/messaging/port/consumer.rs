//! A running consumer of one subscription.

use std::time::Duration;

use tokio::time::sleep;

use crate::handling::BoxFuture;

/// How often a consumer is looked at that does not tell of its changes.
const LOOK: Duration = Duration::from_secs(1);

/// A running consumer of one subscription.
///
/// Where messages are ordered by key, no other reader of the subscription gets one before everything
/// that is out here is settled, paused and stopped consumers included; what was given back then comes
/// first, in its order.
pub trait Consumer: Send + Sync {
    /// Stops fetching. What is out stays out; the connection stays.
    fn pause(&self) -> BoxFuture<'_, ()>;

    /// Fetches again.
    fn resume(&self) -> BoxFuture<'_, ()>;

    /// Fetches again, but has at most `most` messages out that were fetched since, until
    /// [`resume`](Consumer::resume) or [`pause`](Consumer::pause): a look whether handling works again.
    /// An adapter that cannot fetch so few fetches as usual; the engine gives back what is too much.
    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        let _ = most;
        self.resume()
    }

    /// Stops for good: when it returns, no further delivery is pushed. What is out can still be
    /// settled.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// How it is. Answers at once.
    fn state(&self) -> ConsumerState;

    /// Waits until its state is another one than `known`, and gives that. An adapter that is not told
    /// of its changes looks once in a second.
    fn changed(&self, known: ConsumerState) -> BoxFuture<'_, ConsumerState> {
        Box::pin(async move {
            loop {
                let now = self.state();
                if now != known {
                    return now;
                }
                sleep(LOOK).await;
            }
        })
    }
}

/// How a consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It cannot run until somebody acts; the text says what is wrong.
    Failed(String),
    /// Told not to fetch.
    Paused,
    /// Fetching.
    Running,
    /// Waiting for the connection or the topology.
    Starting,
    /// Ended.
    Stopped,
}
