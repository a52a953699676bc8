//! Consume and acknowledge: the queue is filled first, one copy of each message for every row.

use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, try_join};
use tokio::time::timeout;

use crate::order::{Measured, Probe};
use crate::peers::Peer;
use crate::rounds::{RowName, Table};
use crate::sdk::{self, VARIANTS};
use crate::spans::Spans;
use crate::transport::{Load, Open, Transport};
use crate::{LIMIT, Result, in_a_task};

/// The table of one transport and one size of message.
pub(crate) struct Consume {
    transport: Arc<dyn Transport>,
    spans: Arc<Spans>,
    load: Load,
    rows: Vec<RowName>,
    open: Mutex<Vec<Open>>,
    peers: Vec<Arc<dyn Peer>>,
}

impl Consume {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        peers: Vec<Arc<dyn Peer>>,
        spans: Arc<Spans>,
        load: Load,
    ) -> Self {
        let raw = transport.raw_consumers().iter().map(|name| RowName {
            name: (*name).to_owned(),
            raw: true,
        });
        let ours = VARIANTS.iter().map(|variant| RowName {
            name: format!("Interline, default settings, {}", variant.name),
            raw: false,
        });
        let others = peers.iter().map(|peer| RowName {
            name: peer.name(),
            raw: false,
        });
        Self {
            rows: raw.chain(ours).chain(others).collect(),
            peers,
            transport,
            spans,
            load,
            open: Mutex::default(),
        }
    }

    fn groups(&self, round: usize) -> impl Iterator<Item = String> {
        (0..self.rows.len()).map(move |row| group(round, row))
    }
}

impl Consume {
    /// Lets a row handle everything.
    async fn consume(&self, row: usize, group: String, probe: Arc<Probe>) -> Result<()> {
        let transport = Arc::clone(&self.transport);
        let raw = transport.raw_consumers().len();
        let Some(ours) = row.checked_sub(raw) else {
            let consumed = async move { transport.consume_raw(row, &group, probe).await };
            let open = in_a_task(async { timeout(LIMIT, consumed).await? }).await?;
            self.open.lock().expect("nobody panics with it").push(open);
            return Ok(());
        };
        let Some(variant) = VARIANTS.get(ours).copied() else {
            let peer = Arc::clone(&self.peers[ours - VARIANTS.len()]);
            return in_a_task(async move { peer.consume(&group, probe).await }).await;
        };
        self.spans.switch(variant.spans);
        let config = transport.config_of(&group);
        let handler = transport.handler();
        let consumed = in_a_task(sdk::consume(config, variant, handler, probe)).await;
        self.spans.switch(false);
        consumed
    }
}

fn group(round: usize, row: usize) -> String {
    format!("round{round}-row{row}")
}

impl Table for Consume {
    fn title(&self) -> String {
        format!(
            "{}: {} {} messages of {} bytes",
            self.transport.title(),
            self.transport.consumes(),
            self.load.count,
            self.load.size
        )
    }

    fn rows(&self) -> &[RowName] {
        &self.rows
    }

    fn before(&self, round: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let groups: Vec<_> = self.groups(round).collect();
            self.transport.fill(&groups, self.load).await
        })
    }

    fn measure(&self, round: usize, row: usize) -> BoxFuture<'_, Result<Measured>> {
        Box::pin(async move {
            let group = group(round, row);
            let probe = Arc::new(Probe::expecting(self.load.count));
            let consumed = self.consume(row, group.clone(), Arc::clone(&probe));
            let fed = self.transport.feed(&group, Arc::clone(&probe));
            let ((), ()) = try_join(consumed, fed).await?;
            probe.measured()
        })
    }

    fn after(&self, round: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut checked = Ok(());
            for group in self.groups(round) {
                let settled = self.transport.holds(&group, 0).await;
                checked = checked.and(settled);
            }
            self.open.lock().expect("nobody panics with it").clear();
            for group in self.groups(round) {
                self.transport.remove(&group).await?;
            }
            checked
        })
    }
}
