//! The clients that are compared: each asks for an order, checks that the answer is a success, and
//! reads its JSON.

use std::sync::Arc;
use std::time::Duration;

use interline::observability::metrics::InMemoryMetrics;
use interline::prelude::*;
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tokio::time::timeout;

use crate::layers::Layered;
use crate::order::{BASE, Order};
use crate::rounds::RowName;
use crate::upstream::Upstream;
use crate::{LIMIT, Result};

/// The service's time limit for a call: Interline's own when nothing is configured.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);

#[service_client(service = "orders", base = "/api/v1")]
pub(crate) trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

/// The rows of every table that makes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Dressed,
    Middleware,
    Layers,
    WithMetrics,
    WithoutMetrics,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Plain,
        Self::Dressed,
        Self::Middleware,
        Self::Layers,
        Self::WithMetrics,
        Self::WithoutMetrics,
    ];

    /// What it is called on a command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Dressed => "dressed",
            Self::Middleware => "middleware",
            Self::Layers => "layers",
            Self::WithMetrics => "with-metrics",
            Self::WithoutMetrics => "without-metrics",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Plain => "reqwest",
            Self::Dressed => "reqwest, a time limit and the headers that Interline writes",
            Self::Middleware => "reqwest-middleware with reqwest-retry",
            Self::Layers => "tower-resilience: time limit, circuit breaker, retry, bulkhead",
            Self::WithMetrics => "Interline, default settings, metrics on",
            Self::WithoutMetrics => "Interline, default settings, metrics off",
        }
    }

    /// The names of all rows; what the others are measured against are the two of reqwest alone.
    pub(crate) fn names() -> Vec<RowName> {
        let name = |kind: Self| RowName {
            name: kind.title().to_owned(),
            raw: matches!(kind, Self::Plain | Self::Dressed),
        };
        Self::ALL.map(name).to_vec()
    }
}

/// A client that is ready.
pub(crate) enum Client {
    Plain(Bare),
    Dressed(Bare),
    Middleware(ClientWithMiddleware, String),
    Layers(Layered, String),
    Interline(OrdersClient, Running),
}

/// reqwest, and where the orders are.
pub(crate) struct Bare(reqwest::Client, String);

impl Client {
    /// The client of this kind for the upstream's port at this place.
    pub(crate) async fn connect(kind: Kind, url: &str) -> Result<Self> {
        let orders = format!("{url}{BASE}/orders/");
        Ok(match kind {
            Kind::Plain => Self::Plain(Bare(plain_client()?, orders)),
            Kind::Dressed => Self::Dressed(Bare(plain_client()?, orders)),
            Kind::Middleware => {
                let policy = ExponentialBackoff::builder().build_with_max_retries(2);
                let retry = RetryTransientMiddleware::new_with_policy(policy);
                let client = ClientBuilder::new(plain_client()?).with(retry).build();
                Self::Middleware(client, orders)
            }
            Kind::Layers => Self::Layers(Layered::new(plain_client()?)?, orders),
            Kind::WithMetrics => Self::interline(&[url.to_owned()], true).await?,
            Kind::WithoutMetrics => Self::interline(&[url.to_owned()], false).await?,
        })
    }

    async fn interline(urls: &[String], metrics: bool) -> Result<Self> {
        let running = launch(config(urls, ""), metrics).await?;
        Ok(Self::Interline(running.client()?, running))
    }

    /// Asks for the order with this number.
    pub(crate) async fn order(&self, id: u64) -> Result<Order> {
        let order = match self {
            Self::Plain(Bare(client, orders)) => {
                read(client.get(format!("{orders}{id}")).send().await?).await?
            }
            Self::Dressed(Bare(client, orders)) => {
                let call = async {
                    let request = client.get(format!("{orders}{id}")).headers(dress());
                    read(request.send().await?).await
                };
                timeout(CALL_LIMIT, call).await??
            }
            Self::Middleware(client, orders) => {
                read(client.get(format!("{orders}{id}")).send().await?).await?
            }
            Self::Layers(client, orders) => {
                serde_json::from_slice(&client.get(format!("{orders}{id}")).await?)?
            }
            Self::Interline(client, _) => client.order(id).await?,
        };
        order.checked(id)
    }

    pub(crate) async fn close(self) {
        if let Self::Interline(_, running) = self {
            running.stop_within(LIMIT).await;
        }
    }
}

/// All clients, one for each port of an upstream.
pub(crate) struct Clients {
    pub(crate) upstream: Upstream,
    pub(crate) all: Vec<Client>,
}

impl Clients {
    pub(crate) async fn connect(upstream: Upstream) -> Result<Self> {
        let mut all = Vec::new();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            all.push(Client::connect(kind, &upstream.url(at)).await?);
        }
        Ok(Self { upstream, all })
    }

    /// How many orders each row has been given.
    pub(crate) async fn answered(&self) -> Result<Vec<u64>> {
        let mut answered = Vec::new();
        for at in 0..self.all.len() {
            answered.push(self.upstream.answered(at).await?);
        }
        Ok(answered)
    }

    /// Checks that each row was given so many orders since `before`.
    pub(crate) async fn check(&self, before: &[u64], each: u64) -> Result<()> {
        let after = self.answered().await?;
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let given = after[at] - before[at];
            if given != each {
                let title = kind.title();
                return Err(format!("`{title}`: {given} orders given, not {each}").into());
            }
        }
        Ok(())
    }
}

/// Reads an answer that is a success.
async fn read(response: reqwest::Response) -> Result<Order> {
    let bytes = response.error_for_status()?.bytes().await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// reqwest with the settings that Interline's transport has.
pub(crate) fn plain_client() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .pool_idle_timeout(Duration::from_secs(15))
        .tcp_nodelay(true)
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false);
    Ok(client.build()?)
}

/// The headers of one attempt, made as cheaply as can be.
fn dress() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(5);
    let trace = format!(
        "00-{:032x}-{:016x}-01",
        fastrand::u128(..),
        fastrand::u64(..)
    );
    if let Ok(trace) = HeaderValue::try_from(trace) {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    let fixed = HeaderValue::from_static;
    headers.insert(USER_AGENT, fixed("bench"));
    headers.insert(ACCEPT, fixed("application/json, */*;q=0.5"));
    headers.insert(HeaderName::from_static("x-attempt"), fixed("1"));
    let millis = HeaderValue::from(CALL_LIMIT.as_secs() * 1_000);
    headers.insert(HeaderName::from_static("x-timeout-ms"), millis);
    headers
}

/// The configuration of an app that calls these addresses, with these further lines for the service.
pub(crate) fn config(urls: &[String], lines: &str) -> String {
    format!("service.name = \"bench\"\n[services.orders]\nurls = {urls:?}\n{lines}\n")
}

/// An app that calls and nothing else.
pub(crate) async fn launch(toml: String, metrics: bool) -> Result<Running> {
    let config = Config::from_toml("interline.toml", &toml)?;
    let mut app = App::new(config).named_only().publish_only();
    if metrics {
        app = app.metrics(Arc::new(InMemoryMetrics::default()));
    }
    Ok(app.launch().await?)
}
