//! What the tables of both kinds of Redis have in common.

use futures_util::{StreamExt, TryStreamExt, stream};
use interline_tests::redis::Database;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use crate::Result;
use crate::order::Order;
use crate::transport::Load;

/// The server's version, and how it keeps what is written.
pub(crate) async fn server(database: &Database) -> Result<String> {
    let info: String = redis::from_redis_value(database.command(&["INFO", "server"]).await?)?;
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    let kept = database.command(&["CONFIG", "GET", "appendonly"]).await?;
    let (_, kept): (String, String) = redis::from_redis_value(kept)?;
    let version = version.unwrap_or("?");
    Ok(format!("{version}, appendonly {kept}"))
}

/// Publishes orders, each by a command of its own; `check` looks at the answer. Pipelined: a connection
/// writes what is open together.
pub(crate) async fn pipelined(
    connection: MultiplexedConnection,
    load: Load,
    command: fn(&Order) -> Cmd,
    check: fn(Value) -> Result<()>,
) -> Result<()> {
    stream::iter(0..load.count)
        .map(|n| {
            let mut connection = connection.clone();
            async move {
                let order = Order::of_size(n, load.size);
                check(command(&order).query_async(&mut connection).await?)
            }
        })
        .buffer_unordered(load.open)
        .try_for_each(|()| async { Ok(()) })
        .await
}
