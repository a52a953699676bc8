//! What a backend is that instances can be registered at.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::Endpoint;

/// What the methods of a [`Registrar`] return.
pub type Registering = Pin<Box<dyn Future<Output = Result<(), RegistrarError>> + Send>>;

/// A running instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceInstance {
    /// The service.
    pub service: Arc<str>,
    /// Tells the instance from all others, also from its own predecessor.
    pub id: Arc<str>,
    /// Where it is, and what is to be known of it.
    pub endpoint: Endpoint,
}

impl ServiceInstance {
    /// An instance of this service with this identity. The identity may hold letters, digits, `-`, `_`
    /// and `.`; anything else is for the backend to refuse.
    #[must_use]
    pub fn new(service: impl Into<Arc<str>>, id: impl Into<Arc<str>>, endpoint: Endpoint) -> Self {
        Self {
            service: service.into(),
            id: id.into(),
            endpoint,
        }
    }
}

/// Why a backend did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrarError {
    /// It may work later.
    Failed(String),
    /// The backend does not know the instance: it was forgotten, or never registered.
    Unknown,
}

impl fmt::Display for RegistrarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Unknown => f.write_str("the registration is not known any more"),
        }
    }
}

impl std::error::Error for RegistrarError {}

/// A backend at which instances are registered. It does single steps; when each is taken is decided
/// for all kinds alike.
pub trait Registrar: Send + Sync + 'static {
    /// What kind of backend it is, as in the configuration.
    fn kind(&self) -> &'static str;

    /// How long a registration lives without a heartbeat. There is one three times in this time.
    fn ttl(&self) -> Duration;

    /// Registers the instance; one of the same identity is replaced.
    fn register(&self, instance: Arc<ServiceInstance>) -> Registering;

    /// Says that the instance lives. [`RegistrarError::Unknown`] has it registered again.
    fn heartbeat(&self, instance: Arc<ServiceInstance>) -> Registering;

    /// Takes the registration away; that there is none is fine.
    fn deregister(&self, instance: Arc<ServiceInstance>) -> Registering;
}
