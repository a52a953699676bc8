//! Charges orders at a bank that is not always there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use interline::prelude::*;
use shop_contracts::{Charged, OrderPlaced};

interline::service!("payments");

/// Why an order could not be charged, and what becomes of it then.
#[derive(Debug, thiserror::Error, Failure)]
pub enum ChargeError {
    /// The bank may answer next time.
    #[error("bank unreachable")]
    #[fate(retry)]
    BankUnreachable,
    /// The bank will never pay.
    #[error("card {card} refused")]
    #[fate(dead_letter)]
    CardRefused {
        /// The card.
        card: String,
    },
}

/// A bank as one meets it: mostly it pays, at times it does not answer, some cards it refuses.
#[derive(Debug, Default)]
pub struct Bank {
    accounts: Mutex<HashMap<String, BankAccount>>,
}

#[derive(Debug, Default)]
struct BankAccount {
    calls: u32,
    receipt: Option<String>,
}

impl Bank {
    /// Charges an order, once: asked again, it gives the receipt that it gave before.
    ///
    /// # Errors
    /// [`ChargeError`], by the last digit of the card: 3 does not answer twice, 7 never answers, 9
    /// is refused.
    pub fn charge(&self, order: &OrderPlaced) -> Result<String, ChargeError> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(order.order_id.clone()).or_default();
        account.calls += 1;
        match order.card.chars().last() {
            Some('7') => return Err(ChargeError::BankUnreachable),
            Some('9') => {
                return Err(ChargeError::CardRefused {
                    card: order.card.clone(),
                });
            }
            Some('3') if account.calls <= 2 => return Err(ChargeError::BankUnreachable),
            _ => {}
        }
        let receipt = account
            .receipt
            .get_or_insert_with(|| format!("receipt {}", order.order_id));
        Ok(receipt.clone())
    }
}

/// Charges an order. The returned message is published before the order is acknowledged.
///
/// # Errors
/// [`ChargeError`] says what becomes of the order.
#[subscriber(
    concurrency = 8,
    timeout = "5s",
    retry(attempts = 4, first = "100ms", max = "400ms")
)]
pub async fn charge(order: OrderPlaced, bank: State<Bank>) -> Result<Charged, ChargeError> {
    let receipt = bank.charge(&order)?;
    Ok(Charged {
        order_id: order.order_id,
        customer: order.customer,
        receipt,
        total_cents: order.total_cents,
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn order(card: &str) -> OrderPlaced {
        OrderPlaced {
            order_id: "o-1".to_owned(),
            customer: "Ada".to_owned(),
            card: card.to_owned(),
            total_cents: 100,
        }
    }

    /// The handler awaits nothing, so one poll is enough.
    fn run(card: &str) -> Result<String, String> {
        let future = pin!(charge(order(card), State::new(Bank::default())));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(charged)) => Ok(charged.receipt),
            Poll::Ready(Err(error)) => Err(error.to_string()),
            Poll::Pending => panic!("the handler waited"),
        }
    }

    #[test]
    fn a_handler_is_an_ordinary_function() {
        assert_eq!(run("1111"), Ok("receipt o-1".to_owned()));
        assert_eq!(run("1119"), Err("card 1119 refused".to_owned()));
        assert_eq!(run("1117"), Err("bank unreachable".to_owned()));
    }
}
