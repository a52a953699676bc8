//! Takes orders and follows them to their end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use interline::prelude::*;
use shop_contracts::{OrderPlaced, Shipped, Stock, StockClient};

interline::service!("orders");

/// The orders that are on their way, each with its parcel.
#[derive(Debug, Default)]
pub struct OrderBook(Mutex<BTreeMap<String, String>>);

impl OrderBook {
    /// The parcel of an order, if it is on its way.
    #[must_use]
    pub fn parcel(&self, order_id: &str) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(order_id)
            .cloned()
    }
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Nobody keeps the goods.
    #[error("no goods are kept")]
    Stock(#[from] CallError),
    /// The broker has not confirmed it.
    #[error("not confirmed")]
    Publish(#[from] PublishError),
}

/// Places an order: once this returns, its goods are kept, and the broker has it.
///
/// # Errors
/// [`PlaceError`] if that is not so.
pub async fn place(
    publisher: &Publisher,
    stock: &StockClient,
    order: &OrderPlaced,
) -> Result<(), PlaceError> {
    stock.reserve(&order.order_id).await?;
    publisher.publish(order).await?;
    Ok(())
}

/// Notes the parcel of an order. The same message twice changes nothing.
#[subscriber]
pub async fn complete(shipped: Shipped, book: State<OrderBook>) {
    let mut orders = book.0.lock().unwrap_or_else(PoisonError::into_inner);
    orders.insert(shipped.order_id, shipped.parcel);
}
