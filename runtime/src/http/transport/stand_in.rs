//! Something else than a network that carries requests: for tests in one process. What is around an
//! exchange stays as it is, and so does how its answer is read.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body::Body;

use crate::discovery::{Discovery, EndpointSet};
use crate::handling::BoxFuture;

use super::{Cause, Door, TransportError, Why};

/// The body of an answer, as it comes.
pub(crate) type Coming =
    Pin<Box<dyn Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Send + Sync>>;

/// Stands in for all instances of a service and for the way to them.
pub(crate) trait StandIn: Send + Sync + fmt::Debug {
    /// Who says where the instances are. What the configuration says stands there to be looked at, if it
    /// names addresses.
    fn discovery(&self, configured: Option<&EndpointSet>) -> Arc<dyn Discovery>;

    /// Carries a request to the instance at its address, and the answer back.
    fn carry(&self, request: Carried) -> BoxFuture<'_, Result<http::Response<Coming>, Uncarried>>;

    /// Connects to the instance at this address, and hangs up.
    fn reach(&self, authority: &str) -> BoxFuture<'_, Result<(), String>>;
}

/// The services that something stands in for, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct StandIns(BTreeMap<Arc<str>, Arc<dyn StandIn>>);

impl StandIns {
    /// `stand_in` stands in for this service from now on.
    pub(crate) fn add(&mut self, service: Arc<str>, stand_in: Arc<dyn StandIn>) {
        self.0.insert(service, stand_in);
    }

    pub(crate) fn of(&self, service: &str) -> Option<&Arc<dyn StandIn>> {
        self.0.get(service)
    }
}

/// A request on its way.
pub(crate) struct Carried {
    /// Host and port of the instance.
    pub(crate) authority: String,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Unread,
    /// Whether the answer is read while it comes.
    pub(crate) streamed: bool,
    pub(crate) connect_timeout: Duration,
}

/// The body of a request. As long as it is not read, it has not left who sends it.
pub(crate) struct Unread(Option<reqwest::Body>);

impl Unread {
    /// Takes all of it.
    ///
    /// # Errors
    /// It broke off.
    pub(crate) async fn read(self) -> Result<Bytes, Uncarried> {
        let Some(mut body) = self.0 else {
            return Ok(Bytes::new());
        };
        let mut whole = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Uncarried::Lost(Cause::of(&error).0))?;
            if let Ok(data) = frame.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(whole.freeze())
    }
}

/// Why no answer came, and why.
#[derive(Debug)]
pub(crate) enum Uncarried {
    /// There is no connection.
    Unreachable(String),
    /// The server gave it back, because it takes no more.
    Leaving,
    /// The server gave it back, because it has too much to do.
    Busy,
    /// The connection was lost.
    Lost(String),
}

impl From<Uncarried> for TransportError {
    fn from(uncarried: Uncarried) -> Self {
        match uncarried {
            Uncarried::Unreachable(why) => Self::Connect(Cause(why)),
            Uncarried::Leaving => Self::GivenBack(
                Cause("the server takes no more on this connection".to_owned()),
                Why::Leaving,
            ),
            Uncarried::Busy => {
                Self::GivenBack(Cause("the server has too much to do".to_owned()), Why::Busy)
            }
            Uncarried::Lost(why) => Self::Lost(Cause(why)),
        }
    }
}

/// Has the request carried.
pub(super) async fn exchange(
    stand_in: &dyn StandIn,
    mut request: reqwest::Request,
    door: Option<&Door>,
    connect_timeout: Duration,
    streamed: bool,
) -> Result<reqwest::Response, TransportError> {
    let url = request.url();
    let authority = match door.and_then(Door::authority) {
        Some(authority) => authority.to_owned(),
        None => {
            let host = url.host_str().unwrap_or_default();
            format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
        }
    };
    let query = url.query().map(|query| format!("?{query}"));
    let target = format!("{}{}", url.path(), query.unwrap_or_default());
    let carried = Carried {
        authority,
        method: request.method().clone(),
        target,
        headers: std::mem::take(request.headers_mut()),
        body: Unread(request.body_mut().take()),
        streamed,
        connect_timeout,
    };
    let response = stand_in.carry(carried).await?;
    Ok(response.map(reqwest::Body::wrap).into())
}
