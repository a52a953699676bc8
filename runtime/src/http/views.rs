//! The instances of a service, to look at from outside.

use std::sync::Arc;

use crate::resilience::CircuitBreaker;

/// One instance of a service as the calls of this program know it: what
/// [`HttpClient::endpoints`](super::HttpClient::endpoints) gives.
///
/// ```no_run
/// # fn example(running: interline::Running) -> interline::Result<()> {
/// for endpoint in running.manager().http_client("orders")?.endpoints() {
///     println!("{}: {} calls, left alone: {}", endpoint.url, endpoint.in_flight, endpoint.is_ejected);
///     if let (true, Some(circuit)) = (endpoint.url.contains("orders-3"), &endpoint.circuit) {
///         circuit.force_open(); // no call goes there until `reset`, as long as there are others
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceEndpoint {
    /// Where it is.
    pub url: Arc<str>,
    /// Its circuit, to look at or to open, close and reset by hand; `None` where `breaker.enabled = false`,
    /// and behind a mesh. It stays the same for as long as the instance is one.
    pub circuit: Option<CircuitBreaker>,
    /// Whether it is left alone because its circuit is open. One whose circuit is open may be called all the
    /// same, where too many others are left alone.
    pub is_ejected: bool,
    /// Whether its checks fail; `false` where nothing is checked.
    pub is_down: bool,
    /// How many attempts run there now, answers that are being read included.
    pub in_flight: u32,
}
