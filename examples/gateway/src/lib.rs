//! A gateway: one page made of what three services say, each with a limit of its own, so that the page
//! is there whatever one of them does.
//!
//! - the **catalog** has to answer, but not every time: what it said is kept;
//! - the **price** is on the page if it comes in time;
//! - **reviews** are replaced by none.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use interline::http::server::{ContextLayer, RateLimitLayer};
use interline::prelude::*;

pub mod upstreams;

/// What the catalog knows of a product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Product {
    /// Its number.
    pub id: u32,
    /// What it is called.
    pub name: String,
}

/// The service that knows the products.
#[service_client(service = "catalog", timeout = "1s")]
pub trait Catalog {
    /// A product, if there is one of this number. It is asked for every 30 s, and what was known counts
    /// for five minutes more where the service does not answer.
    #[get("/products/{id}")]
    #[cache(ttl = "30s", stale_if_error = "5m")]
    async fn product(&self, id: u32) -> Result<Option<Product>, CallError>;
}

/// The service that knows what things cost.
#[service_client(service = "prices", timeout = "300ms")]
pub trait Prices {
    /// What a product costs, in cents; `None` where nobody says so in time.
    #[get("/prices/{id}")]
    #[fallback(no_price(id))]
    async fn cents(&self, id: u32) -> Result<Option<u64>, CallError>;
}

async fn no_price(error: CallError, id: &u32) -> Result<Option<u64>, CallError> {
    eprintln!("product {id} is shown without a price: {error}");
    Ok(None)
}

/// The service that has the opinions.
#[service_client(service = "reviews", timeout = "500ms")]
pub trait Reviews {
    /// What customers wrote.
    #[get("/reviews/{id}")]
    #[cache(ttl = "5s", stale_while_revalidate = "1m")]
    #[fallback(value = Vec::new())]
    async fn of_product(&self, id: u32) -> Result<Vec<String>, CallError>;
}

/// What the gateway answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    /// What it is about.
    pub product: Product,
    /// What it costs, if that is known.
    pub cents: Option<u64>,
    /// What customers wrote.
    pub reviews: Vec<String>,
}

/// The services that a page is made of.
#[derive(Clone, Debug)]
struct Services {
    catalog: CatalogClient,
    prices: PricesClient,
    reviews: ReviewsClient,
}

/// The gateway, as an app of axum.
///
/// # Errors
/// Where a service is not configured.
pub fn routes(running: &Running) -> interline::Result<Router> {
    let services = Services {
        catalog: running.client()?,
        prices: running.client()?,
        reviews: running.client()?,
    };
    let routes = Router::new()
        .route("/products/{id}", get(page))
        .with_state(services)
        .layer(RateLimitLayer::new(1_000, Duration::from_secs(1)))
        .layer(ContextLayer::new().timeout(Duration::from_secs(2)))
        .layer(running.health_layer());
    Ok(routes)
}

async fn page(
    State(services): State<Services>,
    Path(id): Path<u32>,
) -> Result<Json<Page>, StatusCode> {
    let (product, cents, reviews) = tokio::join!(
        services.catalog.product(id),
        services.prices.cents(id),
        services.reviews.of_product(id),
    );
    let product = product.map_err(|error| unavailable(&error))?;
    Ok(Json(Page {
        product: product.ok_or(StatusCode::NOT_FOUND)?,
        cents: cents.map_err(|error| unavailable(&error))?,
        reviews: reviews.map_err(|error| unavailable(&error))?,
    }))
}

fn unavailable(error: &CallError) -> StatusCode {
    eprintln!("no page: {error}");
    StatusCode::BAD_GATEWAY
}
