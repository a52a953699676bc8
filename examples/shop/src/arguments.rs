//! The command line.

use std::fs;
use std::path::PathBuf;

use shop_contracts::OrderPlaced;

const HELP: &str = "\
usage: shop [--orders N] [--file ORDERS.jsonl] [--only orders|payments|shipping] [--sound-stock]

  --orders N    how many orders to make up (default 40)
  --file FILE   the orders, one JSON object a line, as in examples/shop/orders.jsonl
  --only NAME   host one service; `orders` also places the orders and keeps the account
  --sound-stock let no instance of stock fail; else one of the two does in the middle of the orders";

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Orders,
    Payments,
    Shipping,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Arguments {
    only: Option<Role>,
    count: usize,
    file: Option<PathBuf>,
    sound_stock: bool,
}

/// One line of an order file.
#[derive(serde::Deserialize)]
struct OrderLine {
    customer: String,
    card: String,
    total_cents: u64,
}

impl Arguments {
    /// Reads the command line; the error is what to print.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            only: None,
            count: 40,
            file: None,
            sound_stock: false,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value\n\n{HELP}"))
            };
            match word.as_str() {
                "--orders" => {
                    let text = value()?;
                    arguments.count = text
                        .parse()
                        .map_err(|_| format!("--orders wants a number, not `{text}`\n\n{HELP}"))?;
                }
                "--sound-stock" => arguments.sound_stock = true,
                "--file" => arguments.file = Some(value()?.into()),
                "--only" => {
                    arguments.only = Some(match value()?.as_str() {
                        "orders" => Role::Orders,
                        "payments" => Role::Payments,
                        "shipping" => Role::Shipping,
                        other => return Err(format!("there is no service `{other}`\n\n{HELP}")),
                    });
                }
                other => return Err(format!("`{other}` is not known here\n\n{HELP}")),
            }
        }
        Ok(arguments)
    }

    /// Whether this process hosts a service.
    pub(crate) fn hosts(&self, role: Role) -> bool {
        self.only.is_none_or(|only| only == role)
    }

    /// Whether one instance of stock fails when order `number` of `all` is placed.
    pub(crate) fn stock_fails_at(&self, number: usize, all: usize) -> bool {
        !self.sound_stock && (all / 3..all * 2 / 3).contains(&number)
    }

    /// The orders of this run, from the file or made up.
    pub(crate) fn orders(&self, run: &str) -> interline::Result<Vec<OrderPlaced>> {
        let lines = match &self.file {
            Some(file) => fs::read_to_string(file)?
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(serde_json::from_str)
                .collect::<Result<Vec<OrderLine>, _>>()?,
            None => (0..self.count).map(made_up).collect(),
        };
        let numbered = lines
            .into_iter()
            .enumerate()
            .map(|(number, line)| OrderPlaced {
                order_id: format!("{run}-{:04}", number + 1),
                customer: line.customer,
                card: line.card,
                total_cents: line.total_cents,
            });
        Ok(numbered.collect())
    }
}

fn made_up(number: usize) -> OrderLine {
    const CUSTOMERS: [&str; 7] = [
        "Ada", "Barbara", "Edsger", "Frances", "Grace", "Leslie", "Tony",
    ];
    OrderLine {
        customer: CUSTOMERS[number % CUSTOMERS.len()].to_owned(),
        card: format!("{:04}", 4_000 + number),
        total_cents: 500 + (number as u64 * 1_733) % 20_000,
    }
}
