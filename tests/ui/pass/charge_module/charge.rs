//! The module of a function of the same name.

use interline::prelude::*;

use super::Placed;

#[subscriber(group = "charge", companion = Charge)]
pub async fn charge(placed: Placed) {
    drop(placed);
}
