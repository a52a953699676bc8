//! A shop in three services that exchange messages: orders, payments, shipping; orders asks a fourth one,
//! stock, over HTTP, of which there are two instances, and one fails for a while.
//!
//! By default one process hosts all of them on the embedded broker, places some orders, tells what
//! happens, and ends when every order is accounted for. With `--only SERVICE` a process hosts one of
//! them, for a shop in several processes on RabbitMQ.

mod account;
mod arguments;
mod narrator;
mod storeroom;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;
use shop_contracts::{Charged, OrderPlaced, Shipped};

use account::Account;
use arguments::{Arguments, Role};
use narrator::Narrator;
use storeroom::Storeroom;

interline::service!("shop");

/// How long the shop waits for its last orders.
const PATIENCE: Duration = Duration::from_secs(120);

#[subscriber(group = each_instance)]
async fn note_placed(placed: OrderPlaced, account: State<Arc<Account>>) {
    let (whole, cents) = (placed.total_cents / 100, placed.total_cents % 100);
    account.placed(
        &placed.order_id,
        &format!("{} orders for {whole}.{cents:02}", placed.customer),
    );
}

#[subscriber(group = each_instance)]
async fn note_charged(charged: Charged, account: State<Arc<Account>>) {
    account.charged(&charged.order_id, &format!("{} has paid", charged.customer));
}

#[subscriber(group = each_instance)]
async fn note_shipped(shipped: Shipped, account: State<Arc<Account>>) {
    account.shipped(
        &shipped.order_id,
        &format!("on its way as {}", shipped.parcel),
    );
}

#[tokio::main]
async fn main() -> interline::Result<ExitCode> {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(help) => {
            eprintln!("{help}");
            return Ok(ExitCode::from(2));
        }
    };
    let account = Arc::new(Account::new());
    let mut config = Config::load()?;
    let storeroom = Storeroom::open(&mut config).await?;
    let mut app = App::new(config)
        .metrics(storeroom.metrics())
        .state(Arc::clone(&account))
        .state(shop_orders::OrderBook::default())
        .state(shop_payments::Bank::default())
        .middleware(Narrator::new(Arc::clone(&account)));
    if arguments.hosts(Role::Orders) {
        app = app.with(shop_orders::service());
    }
    if arguments.hosts(Role::Payments) {
        app = app.with(shop_payments::service());
    }
    if arguments.hosts(Role::Shipping) {
        app = app.with(shop_shipping::service());
    }
    if !arguments.hosts(Role::Orders) {
        runtime::start(app).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let orders = arguments.orders(account.run())?;
    let running = app.launch().await?;
    println!("{}\n", running.report().banner());
    running.ready(Duration::from_secs(30)).await?;
    let publisher = running.publisher();
    let stock = running.client()?;
    for (number, order) in orders.iter().enumerate() {
        storeroom.fail(arguments.stock_fails_at(number, orders.len()));
        shop_orders::place(&publisher, &stock, order).await?;
    }
    let complete = account.wait_for(&running, orders.len(), PATIENCE).await?;
    running.stop_within(Duration::from_secs(10)).await;
    println!("\n{}", storeroom.summary());
    println!("{}", account.summary(orders.len()));
    Ok(if complete && storeroom.adds_up(orders.len()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
