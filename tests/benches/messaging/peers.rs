//! Other frameworks that do the same job. Those that are compared bring them: see `tests/benches/peers`.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::Result;
use crate::order::Probe;
use crate::transport::Transport;

/// A way to consume with another framework.
pub(crate) trait Peer: Send + Sync {
    /// The framework, and how it is set.
    fn name(&self) -> String;

    /// Handles what the group's queue holds and acknowledges each message, until `probe` is full.
    fn consume(&self, group: &str, probe: Arc<Probe>) -> BoxFuture<'_, Result<()>>;
}

/// What a program brings for a broker.
pub(crate) type Bring = fn(&Arc<dyn Transport>) -> Vec<Arc<dyn Peer>>;
