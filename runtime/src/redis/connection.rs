//! One connection, with a notice when it ends.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, RedisResult,
    ScriptInvocation, Value,
};
use tokio::sync::watch;

use super::VERSION_MIN;
use super::errors::{Failure, FailureKind, Place};
use super::settings::Target;

/// Takes what the server sends unasked, on the task of the connection: it must not wait.
pub(crate) type Pushes = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// What a connection is opened for.
pub(crate) struct Opening<'a> {
    /// What the server lists it as.
    pub(crate) name: &'a str,
    /// How long an answer may take. For a connection that blocks, more than it blocks: the crate's own
    /// limit of half a second would end every idle wait with an error.
    pub(crate) response_timeout: Duration,
    /// Takes what the server sends unasked.
    pub(crate) pushes: Option<Pushes>,
}

/// One connection to the server. Clones share it; it closes with the last of them.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: MultiplexedConnection,
    place: Arc<Place>,
    lost: watch::Receiver<bool>,
    /// The number under which the server knows it.
    pub(crate) id: u64,
}

/// Opens a connection, and looks whether the server is new enough.
pub(crate) async fn open(target: &Target, opening: Opening<'_>) -> Result<Connection, Failure> {
    let place = Arc::new(target.place.clone());
    let failed = |error: &redis::RedisError| Failure::connecting(&place, error);
    let client = client(target).map_err(|error| failed(&error))?;
    let (ended, lost) = watch::channel(false);
    let pushes = opening.pushes;
    let on_push = move |push: PushInfo| -> Result<(), ()> {
        if push.kind == PushKind::Disconnection {
            ended.send_replace(true);
        } else if let Some(pushes) = &pushes {
            pushes(push);
        }
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(target.connect_timeout))
        .set_response_timeout(Some(opening.response_timeout))
        .set_push_sender(on_push);
    let mut inner = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(|error| failed(&error))?;
    // Answered to every user that is logged in, whatever it may do.
    let hello: Value = redis::cmd("HELLO")
        .query_async(&mut inner)
        .await
        .map_err(|error| failed(&error))?;
    let version = text(&hello, "version").unwrap_or_default();
    if parse_version(&version) < VERSION_MIN {
        let (major, minor) = VERSION_MIN;
        let message = format!(
            "{} is version {version}, and at least {major}.{minor} is needed",
            place.host
        );
        return Err(Failure::new(FailureKind::Unsupported, message));
    }
    let id = number(&hello, "id").unwrap_or_default();
    // Only for people who look at the list of clients; a user may lack the permission.
    let _: RedisResult<()> = redis::cmd("CLIENT")
        .arg("SETNAME")
        .arg(opening.name)
        .query_async(&mut inner)
        .await;
    Ok(Connection {
        inner,
        place,
        lost,
        id,
    })
}

#[cfg(feature = "tls")]
fn client(target: &Target) -> RedisResult<Client> {
    match &target.certificates {
        Some(_) if rustls::crypto::CryptoProvider::get_default().is_none() => {
            // The client crate takes the process's provider and panics where there is none. Somebody
            // else who installs one at this moment has the right to.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            client(target)
        }
        Some(certificates) => Client::build_with_tls(target.info.clone(), certificates.clone()),
        None => Client::open(target.info.clone()),
    }
}

#[cfg(not(feature = "tls"))]
fn client(target: &Target) -> RedisResult<Client> {
    Client::open(target.info.clone())
}

fn entry<'a>(hello: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(entries) = hello else {
        return None;
    };
    let is = |key: &Value| match key {
        Value::BulkString(bytes) => bytes == name.as_bytes(),
        Value::SimpleString(text) => text == name,
        _ => false,
    };
    entries
        .iter()
        .find(|(key, _)| is(key))
        .map(|(_, value)| value)
}

fn text(hello: &Value, name: &str) -> Option<String> {
    String::from_redis_value_ref(entry(hello, name)?).ok()
}

fn number(hello: &Value, name: &str) -> Option<u64> {
    u64::from_redis_value_ref(entry(hello, name)?).ok()
}

fn parse_version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl Connection {
    /// Whether it is up as far as we know.
    pub(crate) fn is_up(&self) -> bool {
        !*self.lost.borrow()
    }

    /// Where it leads.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) {
        // The sender lives in the connection's task: without it there is no connection either.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// One command, of which `what` says in errors what it was about.
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        what: &str,
        command: &Cmd,
    ) -> Result<T, Failure> {
        let mut connection = self.inner.clone();
        command
            .query_async(&mut connection)
            .await
            .map_err(|error| Failure::operation(what, &error))
    }

    /// One command with its raw answer.
    pub(crate) async fn raw(&self, what: &str, command: &Cmd) -> Result<Value, Failure> {
        let mut connection = self.inner.clone();
        let answer = connection
            .req_packed_command(command)
            .await
            .and_then(Value::extract_error);
        answer.map_err(|error| Failure::operation(what, &error))
    }

    /// Several commands sent at once.
    pub(crate) async fn pipe<T: FromRedisValue>(
        &self,
        what: &str,
        pipeline: &Pipeline,
    ) -> Result<T, Failure> {
        let mut connection = self.inner.clone();
        pipeline
            .query_async(&mut connection)
            .await
            .map_err(|error| Failure::operation(what, &error))
    }

    /// A script, which is sent along where the server does not know it yet.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        what: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Failure> {
        let mut connection = self.inner.clone();
        script
            .invoke_async(&mut connection)
            .await
            .map_err(|error| Failure::operation(what, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        assert!(parse_version("7.0.15") >= VERSION_MIN);
        assert!(parse_version("10.0") >= VERSION_MIN);
        assert!(parse_version("6.0.20") < VERSION_MIN);
        assert!(parse_version("") < VERSION_MIN);
    }
}
