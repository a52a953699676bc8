//! Consume and acknowledge: the queue is filled first, one copy of each message for every row.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use crate::order::{Measured, Probe};
use crate::rounds::{RowName, Table};
use crate::sdk::{self, Publishes, VARIANTS};
use crate::spans::Spans;
use crate::transport::{Load, Open, Transport};
use crate::{Result, in_a_task};

/// The table of one transport and one size of message.
pub(crate) struct Consume {
    transport: Arc<dyn Transport>,
    spans: Arc<Spans>,
    load: Load,
    rows: Vec<RowName>,
    open: Mutex<Vec<Open>>,
}

impl Consume {
    pub(crate) fn new(transport: Arc<dyn Transport>, spans: Arc<Spans>, load: Load) -> Self {
        let raw = transport.raw_consumers().iter().map(|name| RowName {
            name: (*name).to_owned(),
            raw: true,
        });
        let ours = VARIANTS.iter().map(|variant| RowName {
            name: format!("Interline, default settings, {}", variant.name),
            raw: false,
        });
        Self {
            rows: raw.chain(ours).collect(),
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

fn group(round: usize, row: usize) -> String {
    format!("round{round}-row{row}")
}

impl Table for Consume {
    fn title(&self) -> String {
        format!(
            "{}: consume and acknowledge {} messages of {} bytes",
            self.transport.title(),
            self.load.count,
            self.load.size
        )
    }

    fn rows(&self) -> &[RowName] {
        &self.rows
    }

    fn before(&self, round: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            for group in self.groups(round) {
                sdk::declare(self.transport.config_of(&group)).await?;
            }
            // Published once, to all groups: every row reads the same bytes.
            let filler = Publishes::connect(self.transport.config(), VARIANTS[1]).await?;
            let filled = filler.publish(self.load).await;
            filler.close().await;
            filled?;
            for group in self.groups(round) {
                self.transport.holds(&group, self.load.count).await?;
            }
            Ok(())
        })
    }

    fn measure(&self, round: usize, row: usize) -> BoxFuture<'_, Result<Measured>> {
        let raw = self.transport.raw_consumers().len();
        let (transport, group) = (Arc::clone(&self.transport), group(round, row));
        let count = self.load.count;
        Box::pin(async move {
            let Some(variant) = row.checked_sub(raw).map(|at| VARIANTS[at]) else {
                let probe = Arc::new(Probe::expecting(count));
                let given = Arc::clone(&probe);
                let consumed =
                    in_a_task(async move { transport.consume_raw(row, &group, given).await });
                let open = consumed.await?;
                self.open.lock().expect("nobody panics with it").push(open);
                return probe.measured();
            };
            self.spans.switch(variant.spans);
            let config = transport.config_of(&group);
            let consumed = in_a_task(sdk::consume(config, variant, count)).await;
            self.spans.switch(false);
            consumed
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
