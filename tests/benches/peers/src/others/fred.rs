//! Redis Streams.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ruststream::runtime::RunningApp;
use ruststream_fred::prelude::*;

use super::{Start, install, installed};
use crate::order::{Order, Probe};
use crate::transport::Place;

pub(super) const ROWS: [(&str, Start); 2] =
    [("workers(16)", sixteen), (".pipeline()", in_a_pipeline)];

#[subscriber(RedisStream::new(installed().source).group(installed().group), workers(16))]
async fn consume_at_once(order: &Order, ctx: &mut Context<'_, (), Arc<Probe>>) -> HandlerOutcome {
    ctx.state().note(order.n);
    HandlerOutcome::ack()
}

#[subscriber(RedisStream::new(installed().source).group(installed().group))]
async fn consume(
    order: &Order,
    ctx: &mut Context<'_, PipelineContext, Arc<Probe>>,
) -> HandlerOutcome {
    ctx.state().note(order.n);
    HandlerOutcome::ack()
}

/// A function that starts a service with one handler.
macro_rules! start {
    ($name:ident, $handler:expr) => {
        fn $name(place: Place, probe: Arc<Probe>) -> BoxFuture<'static, crate::Result<RunningApp>> {
            Box::pin(async move {
                install(&place);
                let service = RustStream::new(AppInfo::new("bench", "0.0.0"))
                    .on_startup(async move |()| Ok::<_, Infallible>(probe))
                    .with_broker(RedisBroker::standalone(place.url.as_str()), |b| {
                        b.include($handler);
                    });
                Ok(service.start().await?)
            })
        }
    };
}

start!(sixteen, consume_at_once);
start!(in_a_pipeline, consume.pipeline());
