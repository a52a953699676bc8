//! Ships what is paid.

use interline::prelude::*;
use shop_contracts::{Charged, Shipped};

interline::service!("shipping");

/// Hands a paid order to the carrier, messages of one order in turn.
#[subscriber(ordered_by = key)]
pub async fn ship(charged: Charged) -> Shipped {
    Shipped {
        parcel: format!("parcel {}", charged.order_id),
        order_id: charged.order_id,
    }
}
