//! Kafka.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ruststream::runtime::RunningApp;
use ruststream_rdkafka::prelude::*;

use super::{Start, install, installed};
use crate::order::{Order, Probe};
use crate::transport::Place;

pub(super) const ROWS: [(&str, Start); 2] = [
    ("Commit::Tracked, one at a time", one_at_a_time),
    ("Commit::Tracked, workers(16)", sixteen),
];

/// A handler with the client's settings of the other rows.
macro_rules! handler {
    ($name:ident $($workers:tt)*) => {
        #[subscriber(
            KafkaTopic::new(installed().source)
                .group(installed().group)
                .start(StartOffset::Earliest)
                .commit(Commit::Tracked)
                .config("auto.commit.interval.ms", "500")
                .config("partition.assignment.strategy", "cooperative-sticky")
                .config("isolation.level", "read_committed")
                .config("fetch.queue.backoff.ms", "5")
                .config("fetch.wait.max.ms", "100")
                .config("queued.max.messages.kbytes", "16384")
                .config("socket.nagle.disable", "true")
            $($workers)*
        )]
        async fn $name(order: &Order, ctx: &mut Context<'_, (), Arc<Probe>>) -> HandlerOutcome {
            ctx.state().note(order.n);
            HandlerOutcome::ack()
        }
    };
}

handler!(consume);
handler!(consume_at_once, workers(16));

/// A function that starts a service with one handler.
macro_rules! start {
    ($name:ident, $handler:ident) => {
        fn $name(place: Place, probe: Arc<Probe>) -> BoxFuture<'static, crate::Result<RunningApp>> {
            Box::pin(async move {
                install(&place);
                let server = place.url.trim_start_matches("kafka://");
                let service = RustStream::new(AppInfo::new("bench", "0.0.0"))
                    .on_startup(async move |()| Ok::<_, Infallible>(probe))
                    .with_broker(KafkaBroker::new([server]), |b| {
                        b.include($handler);
                    });
                Ok(service.start().await?)
            })
        }
    };
}

start!(one_at_a_time, consume);
start!(sixteen, consume_at_once);
