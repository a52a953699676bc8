//! A database of a Redis server that belongs to one case, and what a test asks the server about it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use interline::testing::ServerFixture;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamInfoGroupsReply;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisResult, Value};

/// Numbers that cases of this program have, of whichever server.
static TAKEN: Mutex<BTreeSet<(String, u32)>> = Mutex::new(BTreeSet::new());

/// A database that belongs to one case.
#[derive(Debug)]
pub struct Database {
    /// Its number.
    pub number: u32,
    /// Where to connect, this database included.
    pub url: String,
    client: Client,
    server: String,
}

impl Database {
    /// Takes a database of `server` that no other case has, and empties it.
    ///
    /// # Errors
    ///
    /// When the server refuses, or has no database left.
    pub async fn create_on(server: &ServerFixture) -> RedisResult<Self> {
        let client = Client::open(server.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (_, count): (String, u32) = redis::cmd("CONFIG")
            .arg("GET")
            .arg("databases")
            .query_async(&mut connection)
            .await?;
        let number = {
            let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            let place = |number: u32| (server.url().to_owned(), number);
            let number = (0..count).find(|number| !taken.contains(&place(*number)));
            let number = number.expect("a case gives its database back when it succeeds");
            taken.insert(place(number));
            number
        };
        let url = server.url_with_database(number);
        let database = Self {
            client: Client::open(url.as_str())?,
            server: server.url().to_owned(),
            number,
            url,
        };
        database.command(&["FLUSHDB"]).await?;
        Ok(database)
    }

    /// A connection to it.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        let client = &self.client;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Runs one command.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn command(&self, words: &[&str]) -> RedisResult<Value> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connection().await?).await
    }

    /// A number that a command answers with.
    ///
    /// # Errors
    ///
    /// When the server refuses, or answers with something else.
    pub async fn number(&self, words: &[&str]) -> RedisResult<i64> {
        Ok(redis::from_redis_value(self.command(words).await?)?)
    }

    /// Waits until `group` of `stream` has `ready` entries to come and nothing out.
    ///
    /// # Errors
    ///
    /// When that is not so within `limit`, there is no such group, or the server does not know how far
    /// it is (before 7.0).
    pub async fn wait_for_group(
        &self,
        stream: &str,
        group: &str,
        ready: u64,
        limit: Duration,
    ) -> RedisResult<()> {
        let wrong = |text: String| (ErrorKind::Client, "a group", text).into();
        let end = Instant::now() + limit;
        loop {
            let known = self.command(&["XINFO", "GROUPS", stream]).await?;
            let known: StreamInfoGroupsReply = redis::from_redis_value(known)?;
            let found = known.groups.into_iter().find(|known| known.name == group);
            let found =
                found.ok_or_else(|| wrong(format!("`{group}` of `{stream}` is not there")))?;
            let to_come = found.lag.and_then(|lag| u64::try_from(lag).ok());
            if (to_come, found.pending) == (Some(ready), 0) {
                return Ok(());
            }
            if Instant::now() > end {
                let pending = found.pending;
                let text = format!("`{group}` has {to_come:?} to come and {pending} out");
                return Err(wrong(text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The connections that services have to this database, as `CLIENT LIST` shows them.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn clients(&self) -> RedisResult<Vec<String>> {
        let list: String = redis::from_redis_value(self.command(&["CLIENT", "LIST"]).await?)?;
        let ours = format!(" db={} ", self.number);
        // Ours have a name with the service and the instance.
        let is_service = |line: &&str| {
            let name = line
                .split(" name=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            name.is_some_and(|name| name.contains('/'))
        };
        Ok(list
            .lines()
            .filter(|line| line.contains(&ours))
            .filter(is_service)
            .map(str::to_owned)
            .collect())
    }

    /// Closes every connection that services have to it, or those whose entry in the list contains
    /// `part`; how many.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn close_connections(&self, part: &str) -> RedisResult<usize> {
        let lines = self.clients().await?;
        let mut kills = redis::pipe();
        for line in lines.iter().filter(|line| line.contains(part)) {
            let id = line.strip_prefix("id=").unwrap_or_default();
            let id = id.split(' ').next().unwrap_or_default();
            kills.cmd("CLIENT").arg("KILL").arg("ID").arg(id);
        }
        // All at once: whoever lost the first is not back before the last is gone.
        let closed: Vec<usize> = kills.query_async(&mut self.connection().await?).await?;
        Ok(closed.into_iter().sum())
    }

    /// The database of the same number on a server that is a copy of its own.
    ///
    /// # Errors
    ///
    /// When the address makes no sense.
    pub fn on_copy(&self, server: &ServerFixture) -> RedisResult<Self> {
        let url = server.url_with_database(self.number);
        Ok(Self {
            client: Client::open(url.as_str())?,
            server: server.url().to_owned(),
            number: self.number,
            url,
        })
    }

    /// Empties it and gives it back.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn delete(&self) -> RedisResult<()> {
        self.command(&["FLUSHDB"]).await?;
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&(self.server.clone(), self.number));
        Ok(())
    }
}
