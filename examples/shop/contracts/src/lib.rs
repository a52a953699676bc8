//! What the services of the shop say to each other. Nobody's code, everybody's contract.

use interline::prelude::*;

/// A customer has ordered.
#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: String,
    /// Who ordered.
    pub customer: String,
    /// The last four digits of the card that pays.
    pub card: String,
    /// What it costs.
    pub total_cents: u64,
}

/// The customer has paid.
#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "payments.charged", key = order_id)]
pub struct Charged {
    /// The order.
    pub order_id: String,
    /// Who ordered.
    pub customer: String,
    /// The bank's receipt.
    pub receipt: String,
    /// What was paid.
    pub total_cents: u64,
}

/// The goods are on their way.
#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "shipping.shipped", key = order_id)]
pub struct Shipped {
    /// The order.
    pub order_id: String,
    /// The carrier's number for the parcel.
    pub parcel: String,
}

/// Goods are kept for an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reservation {
    /// The order.
    pub order_id: String,
}

/// The service that keeps goods for orders, asked over HTTP: others use [`StockClient`].
#[service_client(service = "stock", base = "/stock", timeout = "5s")]
pub trait Stock {
    /// Keeps the goods of an order. Asked twice, it is done once, so a client may repeat it.
    #[put("/reservations/{order_id}")]
    async fn reserve(&self, order_id: &str) -> Result<Reservation, CallError>;
}
