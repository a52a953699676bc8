//! What a backend of discovery is.

use std::pin::Pin;
use std::sync::Arc;

use super::{Feed, Registrar};

/// What [`Discovery::follow`] returns: it goes on until it is dropped.
pub type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Which service is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// What the service is called at the backend.
    pub service: Arc<str>,
}

/// A backend of discovery: it knows where the instances of services are.
///
/// ```
/// use interline::discovery::{Discovery, Endpoint, Feed, Following, Query};
///
/// /// Every service is where a naming rule says.
/// struct ByRule;
///
/// impl Discovery for ByRule {
///     fn kind(&self) -> &'static str {
///         "by-rule"
///     }
///
///     fn follow(&self, query: Query, feed: Feed) -> Following {
///         Box::pin(async move {
///             let asking = feed.ask();
///             match Endpoint::parse(&format!("http://{}.internal:8080", query.service)) {
///                 Ok(endpoint) => asking.answered([endpoint].into_iter().collect()),
///                 Err(why) => asking.failed(why),
///             }
///             // Nothing will ever change.
///             std::future::pending::<()>().await;
///         })
///     }
/// }
/// ```
pub trait Discovery: Send + Sync + 'static {
    /// What kind of backend it is, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Follows a service: asks, tells `feed` every whole answer and every failure, and goes on until
    /// it is dropped. It waits between questions by itself. One that ends or panics is begun again
    /// after a second.
    fn follow(&self, query: Query, feed: Feed) -> Following;

    /// What registers instances at this backend, if it can.
    fn registrar(&self) -> Option<Arc<dyn Registrar>> {
        None
    }
}
