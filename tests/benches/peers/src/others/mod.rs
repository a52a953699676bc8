//! RustStream on each broker, with as much at once and as much read ahead as the others.

mod fred;
mod lapin;
mod rdkafka;

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use ruststream::runtime::RunningApp;

use crate::order::Probe;
use crate::peers::Peer;
use crate::transport::{Place, Transport};
use crate::{LIMIT, Result};

/// Starts a service that handles what is there.
type Start = fn(Place, Arc<Probe>) -> BoxFuture<'static, Result<RunningApp>>;

/// A handler of RustStream.
struct Mounted {
    name: &'static str,
    transport: Arc<dyn Transport>,
    start: Start,
}

impl Peer for Mounted {
    fn name(&self) -> String {
        format!("RustStream, {}", self.name)
    }

    fn consume(&self, group: &str, probe: Arc<Probe>) -> BoxFuture<'_, Result<()>> {
        let place = self.transport.place(group);
        Box::pin(async move {
            let service = (self.start)(place, Arc::clone(&probe)).await?;
            let handled = probe.full(LIMIT).await;
            service.shutdown().await?;
            handled
        })
    }
}

/// What there is for a broker.
pub(crate) fn bring(transport: &Arc<dyn Transport>) -> Vec<Arc<dyn Peer>> {
    let title = transport.title();
    let rows: &[(&'static str, Start)] = if title.contains("classic queue") {
        &lapin::CLASSIC
    } else if title.contains("quorum queue") {
        &lapin::QUORUM
    } else if title.starts_with("Kafka") {
        &rdkafka::ROWS
    } else if title.starts_with("Redis Streams") {
        &fred::ROWS
    } else {
        // On Pub/Sub its messages have a frame of their own, and Interline's would be none.
        &[]
    };
    let mounted = rows.iter().map(|(name, start)| Mounted {
        name,
        transport: Arc::clone(transport),
        start: *start,
    });
    mounted.map(|peer| Arc::new(peer) as _).collect()
}

/// What the service that is being made reads: the place in its attribute is an expression, which is
/// evaluated when the handler is mounted.
static PLACE: Mutex<Option<Place>> = Mutex::new(None);

fn install(place: &Place) {
    *PLACE.lock().expect("nobody panics with it") = Some(place.clone());
}

fn installed() -> Place {
    let place = PLACE.lock().expect("nobody panics with it").clone();
    place.expect("it is installed before a handler is mounted")
}
