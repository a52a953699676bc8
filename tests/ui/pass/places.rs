// Handlers in modules, behind `cfg`, with a companion, in any order with `service!`.
#![deny(warnings)]

use interline::prelude::*;
use interline::registry::{Registry, Subscriber};

pub mod orders {
    use interline::prelude::*;

    pub(crate) mod deep {
        use super::super::Placed;
        use interline::prelude::*;

        #[subscriber(group = "deep")]
        pub(in super::super) async fn handle(placed: Placed) {
            drop(placed);
        }
    }

    #[subscriber(group = "outer")]
    pub async fn handle(placed: super::Placed) {
        drop(placed);
    }
}

// A module and a function of one name: both are in the namespace of types.
#[path = "charge_module/charge.rs"]
pub mod charge;
pub use charge::charge;

#[cfg(any())]
#[subscriber]
async fn never(placed: Unknown) {}

#[subscriber(group = "sometimes")]
#[cfg(any())]
async fn sometimes(placed: Unknown) {}

#[subscriber(group = "always")]
#[cfg(all())]
#[must_use]
async fn always(placed: Placed) -> Outcome {
    drop(placed);
    Outcome::done()
}

#[subscriber(group = "raw")]
async fn r#try(Placed { order_id, .. }: Placed) {
    drop(order_id);
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed")]
pub struct Placed {
    pub order_id: String,
}

interline::service!("places");

fn name<S: Subscriber>() -> &'static str {
    S::DESCRIPTOR.name()
}

fn main() {
    assert_eq!(name::<orders::handle>(), "handle");
    assert_eq!(name::<orders::deep::handle>(), "handle");
    assert_eq!(name::<charge::Charge>(), "charge");
    assert_eq!(name::<always>(), "always");
    assert_eq!(name::<r#try>(), "try");
    let _ = charge;
    let registry = Registry::linked();
    assert_eq!(registry.subscribers.len(), 5);
    assert_eq!(registry.services.len(), 1);
}
