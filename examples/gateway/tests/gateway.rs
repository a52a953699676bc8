//! The page is there whatever one of the services does.

use std::time::Duration;

use axum::http::StatusCode;
use gateway::Page;
use gateway::upstreams::Upstream;
use interline::HttpClient;
use interline::prelude::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

interline::service!("visitor");

struct World {
    catalog: Upstream,
    prices: Upstream,
    reviews: Upstream,
    gateway: Running,
    serving: JoinHandle<()>,
    visitor: HttpClient,
}

impl World {
    async fn new() -> interline::Result<Self> {
        let catalog = Upstream::start(r#"{"id": 7, "name": "lamp"}"#).await?;
        let prices = Upstream::start("4200").await?;
        let reviews = Upstream::start(r#"["bright"]"#).await?;
        let mut config = Config::from_toml("interline.toml", "service.name = \"gateway\"")?;
        for (name, upstream) in [
            ("catalog", &catalog),
            ("prices", &prices),
            ("reviews", &reviews),
        ] {
            let urls = vec![upstream.url().to_owned()];
            config.set(&format!("services.{name}.urls"), urls);
        }
        let app = App::new(config).named_only().publish_only();
        let gateway = app.launch().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = gateway::routes(&gateway)?;
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("a server");
        });
        let mut config = Config::from_toml("interline.toml", "service.name = \"visitor\"")?;
        config.set("services.gateway.urls", vec![url]);
        config.set("services.gateway.retry.attempts", 1);
        let app = App::new(config).named_only().publish_only();
        let visitor = app.launch().await?.manager().http_client("gateway")?;
        Ok(Self {
            catalog,
            prices,
            reviews,
            gateway,
            serving,
            visitor,
        })
    }

    async fn page(&self) -> Result<Page, CallError> {
        self.visitor.get("/products/7").receive().await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn a_page_holds_what_all_three_say() -> interline::Result<()> {
    let world = World::new().await?;
    let page = world.page().await?;
    assert_eq!((page.product.id, &*page.product.name), (7, "lamp"));
    assert_eq!(
        (page.cents, &*page.reviews),
        (Some(4_200), &["bright".to_owned()][..])
    );
    // The catalog and the reviews are not asked again; the price is.
    world.page().await?;
    let asked = [&world.catalog, &world.prices, &world.reviews].map(Upstream::requests);
    assert_eq!(asked, [1, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn a_price_that_does_not_come_in_time_is_left_out() -> interline::Result<()> {
    let world = World::new().await?;
    world.prices.take(Duration::from_secs(60));
    let page = world.page().await?;
    assert_eq!((page.cents, page.reviews.len()), (None, 1));
    Ok(())
}

#[tokio::test]
async fn reviews_that_cannot_be_had_are_none() -> interline::Result<()> {
    let world = World::new().await?;
    world.reviews.answer_with(StatusCode::INTERNAL_SERVER_ERROR);
    let page = world.page().await?;
    assert_eq!((page.cents, page.reviews.len()), (Some(4_200), 0));
    Ok(())
}

#[tokio::test]
async fn a_product_that_was_seen_is_there_when_the_catalog_is_not() -> interline::Result<()> {
    let world = World::new().await?;
    world.page().await?;
    world.catalog.answer_with(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.page().await?.product.name, "lamp");
    Ok(())
}

#[tokio::test]
async fn without_the_catalog_there_is_no_page() -> interline::Result<()> {
    let world = World::new().await?;
    world.catalog.answer_with(StatusCode::SERVICE_UNAVAILABLE);
    let error = world.page().await.expect_err("no page");
    assert_eq!(error.status(), Some(StatusCode::BAD_GATEWAY));
    world.catalog.answer_with(StatusCode::NOT_FOUND);
    let error = world.page().await.expect_err("no page");
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    Ok(())
}

#[tokio::test]
async fn the_health_of_the_gateway_is_that_of_its_app() -> interline::Result<()> {
    let world = World::new().await?;
    world.gateway.ready(Duration::from_secs(10)).await?;
    world.visitor.health_check().await?;
    world.gateway.stop_within(Duration::from_secs(10)).await;
    let error = world.visitor.health_check().await.expect_err("down");
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    Ok(())
}
