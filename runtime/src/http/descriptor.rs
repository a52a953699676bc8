//! The static record of a client that `#[service_client]` emits.

use std::fmt;

use http::Method;

use crate::handling::{BindFault, States};
use crate::message::Location;

use super::cache::CacheSettings;
use super::client::Wire;
use super::options::CallSettings;

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// DELETE
    Delete,
    /// GET
    Get,
    /// HEAD
    Head,
    /// PATCH
    Patch,
    /// POST
    Post,
    /// PUT
    Put,
}

impl Verb {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Delete => Method::DELETE,
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Patch => Method::PATCH,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
        }
    }
}

/// One method of a client.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MethodDescriptor {
    /// Its name.
    pub name: &'static str,
    /// The method of its requests.
    pub verb: Verb,
    /// The template of their path, base included.
    pub path: &'static str,
    /// Whether its calls carry an `Idempotency-Key`.
    pub keyed: bool,
    /// Whether its stream of events is asked for again when it breaks.
    pub reconnects: bool,
    /// The service that is asked where its own gives nothing.
    pub elsewhere: Option<&'static str>,
    /// How its answers are kept, if they are.
    pub cache: Option<CacheSettings>,
    /// What it says about its calls.
    pub settings: CallSettings,
}

impl MethodDescriptor {
    /// A record; written by `#[service_client]`.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: &'static str, verb: Verb, path: &'static str) -> Self {
        Self {
            name,
            verb,
            path,
            keyed: false,
            reconnects: false,
            elsewhere: None,
            cache: None,
            settings: CallSettings::UNSET,
        }
    }

    /// Its calls carry an `Idempotency-Key`.
    #[doc(hidden)]
    #[must_use]
    pub const fn keyed(mut self) -> Self {
        self.keyed = true;
        self
    }

    /// Its stream of events is asked for again when it breaks.
    #[doc(hidden)]
    #[must_use]
    pub const fn reconnects(mut self) -> Self {
        self.reconnects = true;
        self
    }

    /// Where its own service gives nothing, this one is asked.
    #[doc(hidden)]
    #[must_use]
    pub const fn falls_back_to(mut self, service: &'static str) -> Self {
        self.elsewhere = Some(service);
        self
    }

    /// Its answers are kept.
    #[doc(hidden)]
    #[must_use]
    pub const fn cache(mut self, settings: CacheSettings) -> Self {
        self.cache = Some(settings);
        self
    }

    /// It says this about its calls.
    #[doc(hidden)]
    #[must_use]
    pub const fn settings(mut self, settings: CallSettings) -> Self {
        self.settings = settings;
        self
    }
}

/// The static record of one client.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ClientDescriptor {
    /// The trait's name.
    pub name: &'static str,
    /// The service that it calls.
    pub service: &'static str,
    /// Its methods.
    pub methods: &'static [MethodDescriptor],
    /// What the trait says about all calls.
    pub settings: CallSettings,
    /// Where it was written.
    pub location: Location,
    provide: fn(&mut States, Result<Wire, BindFault>),
}

impl ClientDescriptor {
    /// A record; written by `#[service_client]`.
    #[doc(hidden)]
    #[must_use]
    pub const fn new<C: ServiceClient>(
        name: &'static str,
        service: &'static str,
        methods: &'static [MethodDescriptor],
        location: Location,
    ) -> Self {
        Self {
            name,
            service,
            methods,
            settings: CallSettings::UNSET,
            location,
            provide: provide::<C>,
        }
    }

    /// The trait says this about all calls.
    #[doc(hidden)]
    #[must_use]
    pub const fn settings(mut self, settings: CallSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Puts the client among the states, or what is missing for it.
    pub(super) fn provide(&self, states: &mut States, wire: Result<Wire, BindFault>) {
        (self.provide)(states, wire);
    }
}

impl fmt::Debug for ClientDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDescriptor")
            .field("name", &self.name)
            .field("service", &self.service)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

fn provide<C: ServiceClient>(states: &mut States, wire: Result<Wire, BindFault>) {
    // What the program gives by itself, such as a client that is not on the wire, stays.
    if states.get::<C>().is_some() {
        return;
    }
    match wire {
        Ok(wire) => {
            states.insert(C::from_wire(wire));
        }
        Err(fault) => states.lacks::<C>(fault),
    }
}

/// A client that `#[service_client]` made of a trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no client of a service",
    label = "expected the client of a trait with `#[service_client]`"
)]
pub trait ServiceClient: Send + Sync + Sized + 'static {
    /// The static record.
    const DESCRIPTOR: &'static ClientDescriptor;

    /// The client that makes its calls through `wire`.
    fn from_wire(wire: Wire) -> Self;
}
