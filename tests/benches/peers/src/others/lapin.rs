//! RabbitMQ.

use std::convert::Infallible;
use std::num::NonZeroU16;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ruststream::runtime::RunningApp;
use ruststream_lapin::prelude::*;

use super::{Start, install, installed};
use crate::order::{Order, Probe};
use crate::transport::Place;

/// As in the other rows.
const PREFETCH: NonZeroU16 = NonZeroU16::new(32).expect("it is not zero");

pub(super) const CLASSIC: [(&str, Start); 2] = [
    ("one at a time", one_at_a_time_classic),
    ("workers(16)", sixteen_classic),
];
pub(super) const QUORUM: [(&str, Start); 2] = [
    ("one at a time", one_at_a_time_quorum),
    ("workers(16)", sixteen_quorum),
];

#[subscriber(RabbitQueue::new(installed().source))]
async fn classic(order: &Order, ctx: &mut Context<'_, (), Arc<Probe>>) -> HandlerOutcome {
    ctx.state().note(order.n);
    HandlerOutcome::ack()
}

#[subscriber(RabbitQueue::new(installed().source), workers(16))]
async fn classic_at_once(order: &Order, ctx: &mut Context<'_, (), Arc<Probe>>) -> HandlerOutcome {
    ctx.state().note(order.n);
    HandlerOutcome::ack()
}

#[subscriber(RabbitQuorumQueue::new(installed().source))]
async fn quorum(order: &Order, ctx: &mut Context<'_, (), Arc<Probe>>) -> HandlerOutcome {
    ctx.state().note(order.n);
    HandlerOutcome::ack()
}

#[subscriber(RabbitQuorumQueue::new(installed().source), workers(16))]
async fn quorum_at_once(order: &Order, ctx: &mut Context<'_, (), Arc<Probe>>) -> HandlerOutcome {
    ctx.state().note(order.n);
    HandlerOutcome::ack()
}

/// A function that starts a service with one handler.
macro_rules! start {
    ($name:ident, $handler:ident) => {
        fn $name(place: Place, probe: Arc<Probe>) -> BoxFuture<'static, crate::Result<RunningApp>> {
            Box::pin(async move {
                install(&place);
                let broker = LapinBroker::new(place.url.as_str()).prefetch(PREFETCH);
                let service = RustStream::new(AppInfo::new("bench", "0.0.0"))
                    .on_startup(async move |()| Ok::<_, Infallible>(probe))
                    .with_broker(broker, |b| {
                        b.include($handler);
                    });
                Ok(service.start().await?)
            })
        }
    };
}

start!(one_at_a_time_classic, classic);
start!(sixteen_classic, classic_at_once);
start!(one_at_a_time_quorum, quorum);
start!(sixteen_quorum, quorum_at_once);
