//! What calls are made through: of a client with a trait, and without one.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::resilience::CircuitBreaker;

use super::call::{Call, Meta};
use super::checks::{CheckSettings, HEALTH_PATH};
use super::descriptor::{ClientDescriptor, MethodDescriptor};
use super::error::CallError;
use super::options::CallOptions;
use super::stack::Stack;
use super::views::ServiceEndpoint;

/// How long a service may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a generated client makes its calls through.
#[derive(Clone)]
pub struct Wire {
    stack: Arc<Stack>,
    methods: Arc<[Arc<Meta>]>,
    options: CallOptions,
}

impl Wire {
    /// What makes the calls of a client. `stack` gives what each service is called by; the name of one
    /// that has none is what is missing.
    pub(super) fn new<'s>(
        client: &'static ClientDescriptor,
        stack: impl Fn(&str) -> Option<&'s Arc<Stack>>,
    ) -> Result<Self, &'static str> {
        let named = |service: &'static str| stack(service).ok_or(service);
        let own = named(client.service)?;
        let methods = client.methods.iter().map(|method| {
            let meta = meta_of(client, method, own);
            let Some(elsewhere) = method.elsewhere else {
                return Ok(Arc::new(meta));
            };
            let elsewhere = named(elsewhere)?;
            let there = Arc::new(meta_of(client, method, elsewhere));
            Ok(Arc::new(meta.elsewhere(elsewhere, there)))
        });
        Ok(Self {
            stack: Arc::clone(own),
            methods: methods.collect::<Result<_, &'static str>>()?,
            options: CallOptions::new(),
        })
    }

    /// The same with these options, above its own.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        Self {
            stack: Arc::clone(&self.stack),
            methods: Arc::clone(&self.methods),
            options: options.over(&self.options),
        }
    }

    /// Begins a call of the method at this place of the record.
    #[doc(hidden)]
    pub fn call(&self, method: usize) -> Call {
        Call::new(&self.stack, &self.methods[method], &self.options)
    }

    /// Notes that the fallback of the method at this place of the record stands in for an answer.
    #[doc(hidden)]
    pub fn falls_back<E>(&self, method: usize, error: &CallError<E>) {
        self.methods[method].falls_back(&self.stack, &error.to_string());
    }
}

/// What is the same for every call of the method, where this service answers it.
fn meta_of(
    client: &'static ClientDescriptor,
    method: &'static MethodDescriptor,
    stack: &Stack,
) -> Meta {
    let layers = [
        stack.settings.of_method(method.name),
        method.settings,
        stack.settings.call,
        client.settings,
    ];
    let name = Cow::Owned(format!("{}::{}", client.name, method.name));
    let verb = method.verb.method();
    let meta = Meta::new(stack, name, verb, method.keyed, &layers);
    let cache = method.cache.filter(|_| stack.settings.cache_enabled);
    meta.reconnecting(method.reconnects).caching(cache).timed()
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("service", &self.stack.service)
            .finish_non_exhaustive()
    }
}

/// Calls a service without a trait, in the same way: `running.manager().http_client("orders")`.
///
/// ```no_run
/// # async fn example(running: interline::Running) -> interline::Result<()> {
/// # #[derive(serde::Deserialize)] struct Order;
/// let orders = running.manager().http_client("orders")?;
/// let order: Order = orders.get("/api/v1/orders").segment("id", "A 7").receive().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient {
    stack: Arc<Stack>,
    options: CallOptions,
}

impl HttpClient {
    pub(super) fn new(stack: Arc<Stack>) -> Self {
        Self {
            stack,
            options: CallOptions::new(),
        }
    }

    /// The same with these options, above its own.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        Self {
            stack: Arc::clone(&self.stack),
            options: options.over(&self.options),
        }
    }

    /// The service that it calls.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.stack.service
    }

    /// The circuit of the whole service, to look at or to open, close and reset by hand; `None` where
    /// `breaker.enabled = false`. Every client of the service in this app has the same.
    ///
    /// ```no_run
    /// # fn example(running: interline::Running) -> interline::Result<()> {
    /// let orders = running.manager().http_client("orders")?;
    /// if let Some(circuit) = orders.circuit() {
    ///     circuit.force_open(); // no call goes out until `reset`
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn circuit(&self) -> Option<&CircuitBreaker> {
        self.stack.circuit()
    }

    /// The instances of now with what is known of each; [`ServiceEndpoint`] has an example.
    #[must_use]
    pub fn endpoints(&self) -> Vec<ServiceEndpoint> {
        self.stack.pool().views()
    }

    /// The address to which a call of now would go: for what speaks to the service in another way.
    /// `None` where none is known.
    #[must_use]
    pub fn endpoint(&self) -> Option<Arc<str>> {
        self.stack.endpoint()
    }

    /// Asks one instance of the service, once, whether it is ready: with a GET of `health.path` of
    /// `[services.NAME]`, or by a connection where `health.kind` is `tcp`, for at most `health.timeout`.
    /// Without that section it is `/health/ready`, for at most 2 s.
    ///
    /// # Errors
    /// [`CallError`] says why it is not, or that nobody knows.
    pub async fn health_check(&self) -> Result<(), CallError> {
        let checks = self.stack.settings.checks.as_ref();
        let limit = checks.map_or(HEALTH_TIMEOUT, CheckSettings::timeout);
        let Some(path) = checks.map_or(Some(HEALTH_PATH), CheckSettings::path) else {
            let connecting = self.stack.connect(limit).await;
            return connecting.map_err(|failure| CallError::new(failure, None));
        };
        let options = CallOptions::new().no_retry().timeout(limit);
        self.with(options).get(path).receive_nothing().await
    }

    /// Begins a GET.
    pub fn get(&self, path: &str) -> Call {
        self.request(Method::GET, path)
    }

    /// Begins a POST. Unless it is made [`idempotent`](Call::idempotent), it is repeated only where it
    /// was not sent.
    pub fn post(&self, path: &str) -> Call {
        self.request(Method::POST, path)
    }

    /// Begins a PUT.
    pub fn put(&self, path: &str) -> Call {
        self.request(Method::PUT, path)
    }

    /// Begins a DELETE.
    pub fn delete(&self, path: &str) -> Call {
        self.request(Method::DELETE, path)
    }

    /// Begins a request. The path begins with a slash and is sent as it is; add what comes from
    /// elsewhere with [`Call::segment`], which encodes it.
    pub fn request(&self, method: Method, path: &str) -> Call {
        // Neither logs nor errors should hold what stands in the path.
        let name = Cow::Owned(method.to_string());
        let layers = [self.stack.settings.call];
        let meta = Meta::new(&self.stack, name, method, false, &layers);
        let meta = Arc::new(meta.timed_with(self.stack.times.as_ref()));
        Call::new(&self.stack, &meta, &self.options).literal(path)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("service", &self.stack.service)
            .finish_non_exhaustive()
    }
}
