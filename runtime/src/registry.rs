//! The static registrations that macros emit, and which of them run.

mod admission;

use std::fmt;

pub use admission::{Admission, Refused};

use crate::handling::{Bind, Handler, OnUnknown};
#[cfg(feature = "http")]
use crate::http::ClientDescriptor;
use crate::message::{Contract, Location};
use crate::messaging::SubscriberOptions;

/// The identity of a crate that holds handlers; `service!` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceIdentity {
    /// The service's name: the default group, the sender of its messages.
    pub name: &'static str,
    /// The package that the crate belongs to.
    pub package: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// The crate, as code names it.
    pub crate_name: &'static str,
    /// Whether the crate is a program, which admits itself.
    pub is_program: bool,
    /// Where `service!` was written.
    pub location: Location,
}

impl ServiceIdentity {
    /// An identity; written by `service!`.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        package: &'static str,
        version: &'static str,
        crate_name: &'static str,
        is_program: bool,
        location: Location,
    ) -> Self {
        Self {
            name,
            package,
            version,
            crate_name,
            is_program,
            location,
        }
    }
}

/// A crate whose handlers are to run: `orders::service()`, given to `App::with`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service(&'static ServiceIdentity);

impl Service {
    /// The service of this identity; written by `service!`.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(identity: &'static ServiceIdentity) -> Self {
        Self(identity)
    }

    /// Its identity.
    #[must_use]
    pub const fn identity(&self) -> &'static ServiceIdentity {
        self.0
    }
}

/// What a subscriber reads.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Messages with a contract.
    Contracts(&'static [&'static Contract]),
    /// Messages of others on this topic (or template).
    Topic {
        /// The topic.
        topic: &'static str,
        /// What is done with what cannot be read.
        on_unknown: OnUnknown,
    },
}

/// The static record of one subscriber.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct SubscriberDescriptor {
    /// The function's name.
    pub function: &'static str,
    /// The module it stands in.
    pub module_path: &'static str,
    /// The service that it belongs to.
    pub service: &'static ServiceIdentity,
    /// What it reads.
    pub source: Source,
    /// What it says about itself.
    pub options: SubscriberOptions,
    /// Whether it takes batches.
    pub batch: bool,
    /// Resolves what it needs; no I/O.
    pub bind: fn(&mut Bind<'_>) -> Option<Handler>,
    /// Adds the contracts of what it may publish.
    pub publishes: fn(&mut Vec<&'static Contract>),
    /// Whether it answers the one who asked.
    pub replies: fn() -> bool,
    /// The topic segments that it takes as arguments.
    pub segments: &'static [&'static str],
    /// Where it was written.
    pub location: Location,
}

impl SubscriberDescriptor {
    /// A record; written by `#[subscriber]`.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        function: &'static str,
        module_path: &'static str,
        service: &'static ServiceIdentity,
        source: Source,
        options: SubscriberOptions,
        bind: fn(&mut Bind<'_>) -> Option<Handler>,
        location: Location,
    ) -> Self {
        Self {
            function,
            module_path,
            service,
            source,
            options,
            batch: false,
            bind,
            publishes: |_| {},
            replies: || false,
            segments: &[],
            location,
        }
    }

    /// It takes batches.
    #[doc(hidden)]
    #[must_use]
    pub const fn batch(mut self) -> Self {
        self.batch = true;
        self
    }

    /// It publishes these.
    #[doc(hidden)]
    #[must_use]
    pub const fn publishes(mut self, publishes: fn(&mut Vec<&'static Contract>)) -> Self {
        self.publishes = publishes;
        self
    }

    /// Whether it answers the one who asked.
    #[doc(hidden)]
    #[must_use]
    pub const fn replies(mut self, replies: fn() -> bool) -> Self {
        self.replies = replies;
        self
    }

    /// It takes these segments of the topic.
    #[doc(hidden)]
    #[must_use]
    pub const fn segments(mut self, segments: &'static [&'static str]) -> Self {
        self.segments = segments;
        self
    }

    /// Its stable name: the one given, else the function's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.options.name.unwrap_or(self.function)
    }
}

impl fmt::Debug for SubscriberDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriberDescriptor")
            .field("name", &self.name())
            .field("service", &self.service.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// A subscriber's companion type, written by `#[subscriber]` beside the function of the same name:
/// `register::<charge>()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a subscriber",
    label = "expected the name of a function with `#[subscriber]`"
)]
pub trait Subscriber: 'static {
    /// The static record.
    const DESCRIPTOR: &'static SubscriberDescriptor;
}

/// One entry of the registry.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Registration {
    /// A client of another service.
    #[cfg(feature = "http")]
    Client(&'static ClientDescriptor),
    /// A crate with handlers.
    Service(&'static ServiceIdentity),
    /// A subscriber.
    Subscriber(&'static SubscriberDescriptor),
}

inventory::collect!(Registration);

/// Everything that was linked into this program, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// The crates with handlers.
    pub services: Vec<&'static ServiceIdentity>,
    /// The subscribers.
    pub subscribers: Vec<&'static SubscriberDescriptor>,
    /// The clients of other services.
    #[cfg(feature = "http")]
    pub clients: Vec<&'static ClientDescriptor>,
}

impl Registry {
    /// Nothing that would run by itself: of what is linked, only what others may ask for.
    #[must_use]
    pub fn descriptors() -> Self {
        let mut registry = Self::linked();
        registry.services.clear();
        registry.subscribers.clear();
        registry
    }

    /// What the linker kept of this program's crates.
    #[must_use]
    pub fn linked() -> Self {
        let mut registry = Self::default();
        for registration in inventory::iter::<Registration> {
            match registration {
                #[cfg(feature = "http")]
                Registration::Client(descriptor) => registry.clients.push(descriptor),
                Registration::Service(identity) => registry.services.push(identity),
                Registration::Subscriber(descriptor) => registry.subscribers.push(descriptor),
            }
        }
        // The linker's order is unspecified and differs between builds.
        registry
            .services
            .sort_by_key(|identity| (identity.package, identity.location));
        registry
            .subscribers
            .sort_by_key(|descriptor| (descriptor.service.package, descriptor.location));
        #[cfg(feature = "http")]
        registry
            .clients
            .sort_by_key(|client| (client.service, client.location));
        registry
    }
}
