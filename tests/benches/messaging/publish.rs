//! Publish with confirmation, many open at once; the server is asked what it holds after each row.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::order::{Measured, Moment};
use crate::rounds::{RowName, Table};
use crate::sdk::{Publishes, VARIANTS};
use crate::spans::Spans;
use crate::transport::{Load, Transport};
use crate::{Result, in_a_task};

const GROUP: &str = "published";

/// The table of one transport, one size of message and one number of open publishes.
pub(crate) struct Publish {
    transport: Arc<dyn Transport>,
    spans: Arc<Spans>,
    load: Load,
    rows: Vec<RowName>,
}

impl Publish {
    pub(crate) fn new(transport: Arc<dyn Transport>, spans: Arc<Spans>, load: Load) -> Self {
        let raw = transport.raw_publishers().iter().map(|name| RowName {
            name: (*name).to_owned(),
            raw: true,
        });
        let ours = VARIANTS.iter().map(|variant| RowName {
            name: format!("Interline, {}", variant.name),
            raw: false,
        });
        Self {
            rows: raw.chain(ours).collect(),
            transport,
            spans,
            load,
        }
    }
}

impl Table for Publish {
    fn title(&self) -> String {
        format!(
            "{}: publish {} messages of {} bytes, each confirmed, {} open",
            self.transport.title(),
            self.load.count,
            self.load.size,
            self.load.open
        )
    }

    fn rows(&self) -> &[RowName] {
        &self.rows
    }

    fn before(&self, _: usize) -> BoxFuture<'_, Result<()>> {
        self.transport.declare(GROUP)
    }

    fn measure(&self, _: usize, row: usize) -> BoxFuture<'_, Result<Measured>> {
        let transport = Arc::clone(&self.transport);
        let (raw, load) = (transport.raw_publishers().len(), self.load);
        Box::pin(async move {
            let measured = match row.checked_sub(raw).map(|at| VARIANTS[at]) {
                None => {
                    let transport = Arc::clone(&transport);
                    in_a_task(async move {
                        let publishing = transport.publish_raw(row, load).await?;
                        let begun = Moment::now();
                        publishing.await?;
                        Ok(Measured::between(begun, Moment::now(), load.count))
                    })
                    .await?
                }
                Some(variant) => {
                    let config = transport.config();
                    self.spans.switch(variant.spans);
                    let published = in_a_task(async move {
                        let publishes = Publishes::connect(config, variant).await?;
                        let rate = publishes.publish(load).await;
                        publishes.close().await;
                        rate
                    });
                    let published = published.await;
                    self.spans.switch(false);
                    published?
                }
            };
            transport.holds(GROUP, load.count).await?;
            transport.purge(GROUP).await?;
            transport.holds(GROUP, 0).await?;
            Ok(measured)
        })
    }

    fn after(&self, _: usize) -> BoxFuture<'_, Result<()>> {
        self.transport.remove(GROUP)
    }
}
