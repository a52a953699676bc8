//! What every row asks for.

use serde::{Deserialize, Serialize};

use crate::Result;

/// Where the upstream has its orders.
pub(crate) const BASE: &str = "/api/v1";

/// The answer of all tables: six fields, about 130 bytes of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    customer: String,
    total_cents: u64,
    currency: String,
    country: String,
    note: String,
}

impl Order {
    pub(crate) fn numbered(id: u64) -> Self {
        Self {
            id,
            customer: "customer-7781".to_owned(),
            total_cents: 129_900,
            currency: "EUR".to_owned(),
            country: "PT".to_owned(),
            note: "leave it at the door".to_owned(),
        }
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an order has a form in JSON")
    }

    /// The order, if it is the one that was asked for.
    pub(crate) fn checked(self, id: u64) -> Result<Self> {
        if self.id == id {
            Ok(self)
        } else {
            Err(format!("asked for order {id}, got {}", self.id).into())
        }
    }
}
