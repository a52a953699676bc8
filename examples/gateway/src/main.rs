//! The gateway as a program: `cargo run -p gateway`, then `curl localhost:8080/products/7`.
//!
//! Where the services are stands in the configuration (`[services.catalog] urls = [..]`); those that
//! are not there are played by this process.

use std::time::Duration;

use gateway::upstreams::Upstream;
use interline::prelude::*;
use tokio::net::TcpListener;

interline::service!("gateway");

const ADDRESS: &str = "127.0.0.1:8080";

#[tokio::main]
async fn main() -> interline::Result<()> {
    let mut config = Config::load()?;
    let mut played = Vec::new();
    for (service, answer) in [
        ("catalog", r#"{"id": 7, "name": "lamp"}"#),
        ("prices", "4200"),
        ("reviews", r#"["bright", "warm"]"#),
    ] {
        if !config.section(&format!("services.{service}")).is_present() {
            let upstream = Upstream::start(answer).await?;
            let urls = vec![upstream.url().to_owned()];
            config.set(&format!("services.{service}.urls"), urls);
            played.push(upstream);
        }
    }
    let running = App::new(config).publish_only().launch().await?;
    let listener = TcpListener::bind(ADDRESS).await?;
    println!("http://{ADDRESS}/products/7 and http://{ADDRESS}/health/ready");
    let ended = async {
        // Without the signal there is nothing to wait for.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, gateway::routes(&running)?)
        .with_graceful_shutdown(ended)
        .await?;
    running.stop_within(Duration::from_secs(10)).await;
    Ok(())
}
