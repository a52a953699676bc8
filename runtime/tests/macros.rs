//! What the macros make does what it says: each form of payload, argument and result.

use interline::prelude::*;

interline::service!("billing");

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "orders.{region}.placed", key = order_id, id = order_id, version = 2)]
pub struct OrderPlaced {
    pub order_id: String,
    pub region: String,
    pub total_cents: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "billing.charged", key = order_id)]
pub struct Charged {
    pub order_id: String,
}

#[derive(Debug, Failure)]
pub enum ChargeError {
    #[fate(retry)]
    Network,
    #[fate(dead_letter)]
    CardRefused,
}

impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for ChargeError {}

struct Bank;

#[subscriber(concurrency = 16, ordered_by = key, timeout = "10s",
             retry(attempts = 6, first = "250ms", max = "30s"))]
async fn charge(
    order: OrderPlaced,
    _bank: State<Bank>,
    #[header("x-tenant")] _tenant: Option<String>,
    #[segment] region: String,
) -> Result<Charged, ChargeError> {
    if region == "nowhere" {
        return Err(ChargeError::CardRefused);
    }
    Ok(Charged {
        order_id: order.order_id,
    })
}

#[subscriber]
async fn plain(paid: Charged) {
    drop(paid);
}

#[subscriber(group = "batched", batch(max = 10, wait = "5ms"))]
async fn batched(paid: Batch<Charged>, _bank: State<Bank>) -> Result<BatchOutcome, ChargeError> {
    Ok(paid.all_done())
}
