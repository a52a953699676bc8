//! Services that are found in the DNS.

use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use interline::prelude::*;

use crate::dns_server::{DnsServer, Says, address, service};
use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient};

const NAME: &str = "_http._tcp.shop.test.";

fn port(server: &Server) -> u16 {
    let address = server.address();
    let (_, port) = address.rsplit_once(':').expect("a port");
    port.parse().expect("a port")
}

#[tokio::test]
async fn calls_follow_service_records_and_go_on_while_the_dns_is_gone() {
    let dns = DnsServer::start().await;
    let (one, two) = (
        Server::start(|_| Reply::json(ITEM)).await,
        Server::start(|_| Reply::json(ITEM)).await,
    );
    let say = |ports: &[u16]| {
        let records = ports.iter().map(|port| service(1, *port, "host.test."));
        dns.say(NAME, RecordType::SRV, Says::Records(0, records.collect()));
    };
    dns.say(
        "host.test.",
        RecordType::A,
        Says::Records(0, vec![address("127.0.0.1")]),
    );
    say(&[port(&one)]);
    let toml = format!(
        "service.name = \"till\"\n[discovery.dns]\nkind = \"dns\"\nrecords = \"srv\"\n\
         name = \"_http._tcp.{{service}}.test.\"\nservers = [\"{}\"]\nttl_min = \"20ms\"\n\
         timeout = \"100ms\"\n[services.shop]\n",
        dns.address
    );
    let config = Config::from_toml("interline.toml", &toml).expect("TOML");
    let app = App::new(config).named_only().publish_only();
    let running = app.launch().await.expect("a sound wiring");
    let shop: ShopClient = running.client().expect("a configured service");
    shop.item("7").await.unwrap();
    let name = format!("host.test:{}", port(&one));
    assert_eq!(one.seen()[0].header("host"), name);
    say(&[port(&one), port(&two)]);
    let begun = Instant::now();
    while two.count() == 0 {
        shop.item("7").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    say(&[port(&two)]);
    while running.health().services[0].endpoints != 1 {
        shop.item("7").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    drop(dns);
    let before = one.count();
    while running.health().services[0].sources[0].error.is_none() {
        shop.item("7").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    shop.item("7").await.unwrap();
    assert_eq!(one.count(), before);
    running.stop_within(Duration::from_secs(5)).await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn what_the_dns_finds_is_called_by_its_name() {
    let authority = crate::tls::Authority::new();
    let way = authority.way("shop.test", &["h2"], false);
    let server = Server::start_with(|_| Reply::json(ITEM), way).await;
    let dns = DnsServer::start().await;
    let here = Says::Records(0, vec![address("127.0.0.1")]);
    dns.say("shop.test.", RecordType::A, here);
    let toml = format!(
        "service.name = \"till\"\n[discovery.dns]\nkind = \"dns\"\nport = {}\nscheme = \"https\"\n\
         name = \"{{service}}.test.\"\nservers = [\"{}\"]\n[services.shop]\n{}\n",
        server.port(),
        dns.address,
        authority.trusted()
    );
    let config = Config::from_toml("interline.toml", &toml).expect("TOML");
    let app = App::new(config).named_only().publish_only();
    let running = app.launch().await.expect("a sound wiring");
    let shop: ShopClient = running.client().expect("a configured service");
    shop.item("7").await.unwrap();
    assert_eq!(server.count(), 1);
    running.stop_within(Duration::from_secs(5)).await;
}
