//! Calls in a second: as many callers as the table says, each with one call open at a time.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use crate::Result;
use crate::measured::{Measured, Moment};
use crate::rounds::{RowName, Table};
use crate::rows::{Clients, Kind};

/// Calls of each caller before the clock starts, so that its connection is there.
const WARM: u64 = 20;

/// The title of the table of so many callers who make so many calls together.
pub(crate) fn title(callers: u64, calls: u64) -> String {
    format!("Rate: {calls} calls, {callers} open at a time")
}

pub(crate) struct Rates {
    clients: Arc<Clients>,
    callers: u64,
    /// Calls of each caller.
    each: u64,
    rows: Vec<RowName>,
    before: Mutex<Vec<u64>>,
}

impl Rates {
    pub(crate) fn new(clients: &Arc<Clients>, callers: u64, calls: u64) -> Self {
        Self {
            clients: Arc::clone(clients),
            callers,
            each: calls.div_ceil(callers),
            rows: Kind::names(),
            before: Mutex::default(),
        }
    }

    /// Lets all callers make so many calls each.
    async fn call(&self, row: usize, each: u64) -> Result<()> {
        let mut calling = JoinSet::new();
        for caller in 0..self.callers {
            let clients = Arc::clone(&self.clients);
            calling.spawn(async move {
                let client = &clients.all[row];
                for n in 0..each {
                    client.order(caller * each + n).await?;
                }
                Ok::<_, crate::Error>(())
            });
        }
        while let Some(called) = calling.join_next().await {
            called??;
        }
        Ok(())
    }
}

impl Table for Rates {
    fn title(&self) -> String {
        title(self.callers, self.each * self.callers)
    }

    fn rows(&self) -> &[RowName] {
        &self.rows
    }

    fn before(&self, _round: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let answered = self.clients.answered().await?;
            *self.before.lock().unwrap_or_else(PoisonError::into_inner) = answered;
            Ok(())
        })
    }

    fn measure(&self, _round: usize, row: usize) -> BoxFuture<'_, Result<Measured>> {
        Box::pin(async move {
            self.call(row, WARM).await?;
            let begun = Moment::now();
            self.call(row, self.each).await?;
            let ended = Moment::now();
            Ok(Measured::between(begun, ended, self.each * self.callers))
        })
    }

    fn after(&self, _round: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let before = self
                .before
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let each = (WARM + self.each) * self.callers;
            self.clients.check(&before, each).await
        })
    }
}
