//! One request to one endpoint, over reqwest.

mod address;
mod clients;
mod door;
#[cfg(feature = "testing")]
pub(crate) mod stand_in;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, Method, StatusCode};

#[cfg(feature = "testing")]
use tokio::time::{Instant, timeout};

use crate::clock::Rng;
use crate::discovery::{Endpoint, reach};

use super::body::Body;
use super::error::ERROR_BYTES_MAX;
use super::tls::Security;

use clients::Clients;

pub(super) use address::Address;
pub(super) use door::Door;

/// How often a connection of HTTP/2 on which calls wait is tested.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long the test may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections to all endpoints of a service.
#[derive(Debug)]
pub(super) struct Transport {
    clients: Clients,
    bytes_max: usize,
    /// What carries requests in place of the network.
    #[cfg(feature = "testing")]
    stand_in: Option<(Arc<dyn stand_in::StandIn>, Duration)>,
}

/// How connections are made and kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// What is sent.
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Where the instance has a name of its own.
    pub(super) door: Option<Arc<Door>>,
    /// Where to, or why there is no such place.
    pub(super) url: Result<reqwest::Url, Cause>,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Whether the body of a success is left to whoever asked.
    pub(super) streamed: bool,
}

/// What came back, whole unless the body is streamed.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) rest: Option<reqwest::Body>,
}

/// Why a server gives a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It takes no more on this connection, as before a restart.
    Leaving,
    /// It has too much to do.
    Busy,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum TransportError {
    /// No connection: the request was not sent.
    Connect(Cause),
    /// The server gave the request back and says that it has done nothing about it.
    GivenBack(Cause, Why),
    /// The connection was lost, or what came is not HTTP.
    Lost(Cause),
    /// The request cannot be sent as it is.
    Request(Cause),
    /// The body of the request could not be had from where it comes.
    Body(Cause),
    /// The body is longer than may be.
    TooLarge(usize),
}

impl Ways {
    fn builder(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(self.idle_timeout)
            .tcp_nodelay(true)
            // A connection on which nothing comes any more would else take every call with it, until
            // the system gives it up after many minutes.
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            // What is repeated and where is decided above; a redirect would leave the chosen
            // endpoint, and a proxy of the environment is none of ours.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
    }
}

impl Transport {
    /// Connects to nothing yet. Fails where a file of TLS is wrong, and where the system gives no
    /// resources.
    pub(super) fn new(
        ways: Ways,
        security: Security,
        age_max: Option<Duration>,
        bytes_max: usize,
        rng: &Rng,
    ) -> Result<Self, String> {
        let clients = Clients::new(ways, security, age_max, rng)?;
        Ok(Self {
            clients,
            bytes_max,
            #[cfg(feature = "testing")]
            stand_in: None,
        })
    }

    /// The same, with this in place of the network.
    #[cfg(feature = "testing")]
    pub(super) fn carried_by(
        mut self,
        stand_in: Option<&Arc<dyn stand_in::StandIn>>,
        ways: Ways,
    ) -> Self {
        self.stand_in = stand_in.map(|one| (Arc::clone(one), ways.connect_timeout));
        self
    }

    /// Closes connections that are old, and has new ones made with the certificates of now, for as long
    /// as it is polled.
    pub(super) async fn keep(&self, service: &str) {
        // There are no connections.
        #[cfg(feature = "testing")]
        if self.stand_in.is_some() {
            return;
        }
        self.clients.keep(service).await;
    }

    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Incoming, TransportError> {
        let door = outgoing.door.as_deref();
        let url = outgoing.url.map_err(TransportError::Request)?;
        let mut headers = outgoing.headers;
        if let Some(host) = door.and_then(Door::header) {
            headers.entry(HOST).or_insert_with(|| host.clone());
        }
        let mut request = reqwest::Request::new(outgoing.method, url);
        *request.headers_mut() = headers;
        *request.body_mut() = outgoing.body.to_reqwest();
        let response = self.exchange(request, door, outgoing.streamed).await;
        let mut response = response.map_err(|error| match error {
            TransportError::Lost(cause) | TransportError::Request(cause)
                if outgoing.body.has_failed() =>
            {
                TransportError::Body(cause)
            }
            error => error,
        })?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if outgoing.streamed && status.is_success() {
            let rest = http::Response::from(response).into_body();
            return Ok(Incoming {
                status,
                headers,
                body: Bytes::new(),
                rest: Some(rest),
            });
        }
        let body = match status.is_success() {
            true => self.read(response).await?,
            false => self.read_beginning(response).await,
        };
        Ok(Incoming {
            status,
            headers,
            body,
            rest: None,
        })
    }

    #[cfg_attr(
        not(feature = "testing"),
        expect(
            unused_variables,
            reason = "only what stands in for the network has to be told"
        )
    )]
    async fn exchange(
        &self,
        request: reqwest::Request,
        door: Option<&Door>,
        streamed: bool,
    ) -> Result<reqwest::Response, TransportError> {
        #[cfg(feature = "testing")]
        if let Some((stand_in, connect_timeout)) = &self.stand_in {
            return stand_in::exchange(&**stand_in, request, door, *connect_timeout, streamed)
                .await;
        }
        let sending = self.clients.with(door, |client| client.execute(request));
        let sending = sending.map_err(|why| TransportError::Request(Cause(why)))?;
        sending.await.map_err(|error| classify(&error))
    }

    /// Connects to an endpoint and hangs up; gives how long that took, or why it does not work.
    pub(super) async fn reach(
        &self,
        endpoint: &Endpoint,
        limit: Duration,
    ) -> Result<Duration, String> {
        #[cfg(feature = "testing")]
        if let Some((stand_in, _)) = &self.stand_in {
            let (begun, authority) = (Instant::now(), endpoint.authority());
            return match timeout(limit, stand_in.reach(&authority)).await {
                Ok(reached) => reached.map(|()| begun.elapsed()),
                Err(_) => Err(format!("no connection within {} ms", limit.as_millis())),
            };
        }
        reach(endpoint, limit).await
    }

    /// As much of the body as an error holds. The status is what counts: neither a long page beside it nor
    /// one that breaks off makes it another.
    async fn read_beginning(&self, mut response: reqwest::Response) -> Bytes {
        let most = ERROR_BYTES_MAX.min(self.bytes_max);
        let mut beginning = BytesMut::new();
        while beginning.len() < most
            && let Ok(Some(piece)) = response.chunk().await
        {
            let room = most - beginning.len();
            beginning.extend_from_slice(&piece[..room.min(piece.len())]);
        }
        beginning.freeze()
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, TransportError> {
        let too_large = TransportError::TooLarge(self.bytes_max);
        let announced = response.content_length().unwrap_or_default();
        if announced > self.bytes_max as u64 {
            return Err(too_large);
        }
        let lost = |error: reqwest::Error| TransportError::Lost(Cause::of(&error));
        let Some(first) = response.chunk().await.map_err(lost)? else {
            return Ok(Bytes::new());
        };
        // Most answers are one piece, which needs no copy.
        let Some(second) = response.chunk().await.map_err(lost)? else {
            return if first.len() > self.bytes_max {
                Err(too_large)
            } else {
                Ok(first)
            };
        };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        loop {
            if whole.len() > self.bytes_max {
                return Err(too_large);
            }
            match response.chunk().await.map_err(lost)? {
                Some(piece) => whole.extend_from_slice(&piece),
                None => return Ok(whole.freeze()),
            }
        }
    }
}

fn classify(error: &reqwest::Error) -> TransportError {
    let cause = Cause::of(error);
    if error.is_connect() {
        TransportError::Connect(cause)
    } else if error.is_builder() {
        TransportError::Request(cause)
    } else if let Some(why) = given_back(error) {
        TransportError::GivenBack(cause, why)
    } else {
        TransportError::Lost(cause)
    }
}

/// Of HTTP/2, where a server can say what it has not begun with (RFC 9113, 6.8 and 8.7).
fn given_back(error: &reqwest::Error) -> Option<Why> {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let error = causes
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .next()?;
    match error.reason()? {
        // Only requests above the last one that it goes on with end so.
        h2::Reason::NO_ERROR if error.is_go_away() && error.is_remote() => Some(Why::Leaving),
        h2::Reason::REFUSED_STREAM if error.is_reset() && error.is_remote() => Some(Why::Busy),
        _ => None,
    }
}

/// An error of the client crate in words. It is not passed on: its address may hold what is secret in
/// a query.
#[derive(Debug)]
pub(super) struct Cause(pub(super) String);

impl Cause {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut text = String::new();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        if text.is_empty() {
            "the HTTP client failed and does not say why".clone_into(&mut text);
        }
        Self(text)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}
