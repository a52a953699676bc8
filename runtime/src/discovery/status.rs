//! How discovery is.

use std::sync::Arc;
use std::time::Duration;

use super::EndpointSet;

/// What is known of where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// The service.
    pub service: Arc<str>,
    /// How many endpoints are in use.
    pub endpoints: usize,
    /// How many of them fail their active checks.
    pub unhealthy: usize,
    /// Whether it is known where the service is, if only that it is nowhere. Always so where the
    /// addresses stand in the configuration.
    pub resolved: bool,
    /// How long ago it was true what was kept on disk, where that is in use because no backend has
    /// answered since the start.
    pub cached: Option<Duration>,
    /// The backends that were asked, in their order; none where the addresses stand in the
    /// configuration.
    pub sources: Vec<SourceStatus>,
}

impl DiscoveryStatus {
    /// That of a service whose addresses stand in the configuration.
    pub(crate) fn fixed(service: &Arc<str>, endpoints: &EndpointSet) -> Self {
        Self {
            service: Arc::clone(service),
            endpoints: endpoints.len(),
            unhealthy: 0,
            resolved: true,
            cached: None,
            sources: Vec::new(),
        }
    }
}

/// What one backend says of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// The backend's name in the configuration.
    pub backend: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// How many endpoints it told last; `None` before its first answer.
    pub endpoints: Option<usize>,
    /// How many more it told that are not called: the configuration asks for others.
    pub left_out: usize,
    /// How long ago it answered last.
    pub age: Option<Duration>,
    /// Why it does not answer now.
    pub error: Option<String>,
}
