//! The same subscribers, each of which says that it takes what comes at most once.

use std::marker::PhantomData;

use interline::messaging::DeliveryMode;
use interline::registry::{Subscriber, SubscriberDescriptor};

/// A subscriber with `delivery = at_most_once`, and without what conflicts with that.
pub(crate) struct Once<S>(PhantomData<S>);

impl<S> Once<S> {
    pub(crate) fn of(_: S) -> Self {
        Self(PhantomData)
    }
}

impl<S: Subscriber> Subscriber for Once<S> {
    const DESCRIPTOR: &'static SubscriberDescriptor = &{
        let mut descriptor = *S::DESCRIPTOR;
        descriptor.options.delivery = Some(DeliveryMode::AtMostOnce);
        descriptor.options.retry = None;
        descriptor.options.dead_letter = None;
        descriptor.options.ack = None;
        descriptor
    };
}
