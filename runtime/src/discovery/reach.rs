//! Whether an endpoint can be reached at all.

use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Endpoint;

/// Connects to the endpoint and hangs up; gives how long that took, or why it does not work.
pub(crate) async fn reach(endpoint: &Endpoint, limit: Duration) -> Result<Duration, String> {
    let begun = Instant::now();
    let connecting = TcpStream::connect(endpoint.authority());
    match timeout(limit, connecting).await {
        Ok(Ok(_)) => Ok(begun.elapsed()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} ms", limit.as_millis())),
    }
}

/// How the instances of one service are asked how they are.
pub(crate) trait Examine: Send + Sync {
    /// Asks this one; gives how long that took, or what is wrong with it.
    fn examine(&self, endpoint: Endpoint) -> Examining;
}

/// What [`Examine::examine`] returns.
pub(crate) type Examining = Pin<Box<dyn Future<Output = Result<Duration, String>> + Send>>;
