//! Which of the linked crates run: a program admits itself, a library is named.

use crate::registry::{Registry, Service, ServiceIdentity, SubscriberDescriptor};

/// What was linked, divided into what runs and what does not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Admission {
    /// The subscribers that run, in a fixed order.
    pub admitted: Vec<&'static SubscriberDescriptor>,
    /// The crates that run.
    pub services: Vec<&'static ServiceIdentity>,
    /// The crates that were found and that nobody admitted.
    pub refused: Vec<Refused>,
}

/// A crate that was found and does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The crate.
    pub service: &'static ServiceIdentity,
    /// The names of its subscribers.
    pub subscribers: Vec<&'static str>,
}

impl Registry {
    /// Admits the program's own crate and the `hosted` libraries.
    #[must_use]
    pub fn admit(&self, hosted: &[Service]) -> Admission {
        let mut admission = Admission::default();
        let mut services: Vec<&'static ServiceIdentity> = Vec::new();
        let known = self.services.iter().copied();
        let of_subscribers = self.subscribers.iter().map(|found| found.service);
        let of_hosted = hosted.iter().map(Service::identity);
        for service in known.chain(of_subscribers).chain(of_hosted) {
            if !services.contains(&service) {
                services.push(service);
            }
        }
        services.sort_by_key(|service| (service.package, service.location));
        for service in services {
            let subscribers = self
                .subscribers
                .iter()
                .copied()
                .filter(|found| found.service == service);
            if service.is_program || hosted.iter().any(|hosted| hosted.identity() == service) {
                admission.services.push(service);
                admission.admitted.extend(subscribers);
            } else {
                admission.refused.push(Refused {
                    service,
                    subscribers: subscribers.map(SubscriberDescriptor::name).collect(),
                });
            }
        }
        admission
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Location;
    use crate::messaging::SubscriberOptions;
    use crate::registry::Source;

    const fn at(line: u32) -> Location {
        Location {
            file: "src/lib.rs",
            line,
            column: 1,
        }
    }

    const fn subscriber(
        function: &'static str,
        service: &'static ServiceIdentity,
    ) -> SubscriberDescriptor {
        let source = Source::Contracts(&[]);
        let options = SubscriberOptions::UNSET;
        SubscriberDescriptor::new(function, "m", service, source, options, |_| None, at(9))
    }

    static PROGRAM: ServiceIdentity =
        ServiceIdentity::new("shop", "shop", "1.0.0", "shop", true, at(1));
    static ORDERS: ServiceIdentity =
        ServiceIdentity::new("orders", "orders", "1.0.0", "orders", false, at(1));
    static AUDIT: ServiceIdentity =
        ServiceIdentity::new("audit", "audit", "1.0.0", "audit", false, at(1));
    static OWN: SubscriberDescriptor = subscriber("own", &PROGRAM);
    static PLACE: SubscriberDescriptor = subscriber("place", &ORDERS);
    static NOTE: SubscriberDescriptor = subscriber("note", &AUDIT);

    #[test]
    fn a_program_admits_itself_and_a_library_is_named() {
        let registry = Registry {
            services: vec![&PROGRAM, &AUDIT, &ORDERS],
            subscribers: vec![&NOTE, &PLACE, &OWN],
            ..Registry::default()
        };
        let admission = registry.admit(&[Service::new(&ORDERS)]);
        let names: Vec<_> = admission
            .admitted
            .iter()
            .map(|found| found.name())
            .collect();
        assert_eq!(names, ["place", "own"]);
        assert_eq!(admission.services, [&ORDERS, &PROGRAM]);
        assert_eq!(
            admission.refused,
            [Refused {
                service: &AUDIT,
                subscribers: vec!["note"]
            }]
        );
    }

    #[test]
    fn a_hosted_crate_without_subscribers_is_known_all_the_same() {
        let admission = Registry::default().admit(&[Service::new(&ORDERS)]);
        assert_eq!(admission.services, [&ORDERS]);
        assert!(admission.admitted.is_empty() && admission.refused.is_empty());
    }
}
