use std::time::Instant;

use super::*;
use crate::config::Config;
use crate::discovery::settings::{Backends, Whereabouts};
use crate::discovery::{DiscoveryStatus, ServiceWatch};
use hickory_resolver::proto::rr::RecordType::{A, AAAA, SRV};

mod server;

use server::{DnsServer, Says, address, alias, service, weighted};

/// A service `orders` that is followed by what the server says.
struct Followed {
    watch: Arc<ServiceWatch>,
    _task: tokio::task::JoinSet<()>,
}

impl Followed {
    /// With these further settings of the backend.
    fn start(server: &DnsServer, lines: &str) -> Self {
        Self::named(server, "orders", lines)
    }

    fn named(server: &DnsServer, name: &str, lines: &str) -> Self {
        let toml = format!(
            "[discovery.dns]\nkind = \"dns\"\nservers = [\"{}\"]\nttl_min = \"20ms\"\n{lines}\n\
             [services.orders.discovery]\npatience = \"300ms\"\n\
             name = \"{name}\"\n",
            server.address
        );
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let backends = Backends::read(&config, &"billing".into(), &[], &Rng::new(), &mut faults);
        let section = config.section("services.orders");
        let place = backends.whereabouts(&section, (&["http"], &["http"]), None, &mut faults);
        faults.into_result().unwrap();
        let Some(Whereabouts::Watched(watch)) = place else {
            panic!("not followed");
        };
        let mut task = tokio::task::JoinSet::new();
        task.spawn(Arc::clone(&watch).run());
        Self { watch, _task: task }
    }

    fn urls(&self) -> Vec<String> {
        let snapshot = self.watch.snapshots();
        let snapshot = snapshot.borrow();
        snapshot.endpoints.iter().map(ToString::to_string).collect()
    }

    fn error(&self) -> Option<String> {
        let status: DiscoveryStatus = self.watch.status();
        status.sources[0].error.clone()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            let status = self.watch.status();
            let waited = begun.elapsed();
            assert!(
                waited < Duration::from_secs(20),
                "{what}: {:?} {status:?}",
                self.urls()
            );
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_urls(&self, urls: &[&str]) {
        self.until(&urls.join(" "), |this| this.urls() == urls)
            .await;
    }
}

const ADDRESSES: &str = "port = 8080\nname = \"{service}.test.\"";
const SERVICES: &str = "records = \"srv\"\nname = \"_http._tcp.{service}.test.\"";
const ORDERS: &str = "orders.test.";
const HTTP: &str = "_http._tcp.orders.test.";

#[tokio::test]
async fn addresses_of_both_families_are_followed() {
    let dns = DnsServer::start().await;
    dns.say(
        ORDERS,
        A,
        Says::Records(0, vec![address("10.0.0.1"), address("10.0.0.2")]),
    );
    dns.say(ORDERS, AAAA, Says::Nothing(0));
    let orders = Followed::start(&dns, ADDRESSES);
    orders
        .until_urls(&["http://10.0.0.1:8080", "http://10.0.0.2:8080"])
        .await;
    dns.say(
        ORDERS,
        A,
        Says::Records(0, vec![alias("o.test."), address("10.0.0.3")]),
    );
    dns.say(ORDERS, AAAA, Says::Records(0, vec![address("fd00::1")]));
    orders
        .until_urls(&["http://10.0.0.3:8080", "http://[fd00::1]:8080"])
        .await;
    // One family that fails takes nothing from the other, nor from itself.
    dns.say(ORDERS, AAAA, Says::Failure);
    dns.say(ORDERS, A, Says::Records(0, vec![address("10.0.0.4")]));
    orders
        .until_urls(&["http://10.0.0.4:8080", "http://[fd00::1]:8080"])
        .await;
    assert_eq!(orders.error(), None);
}

#[tokio::test]
async fn services_say_their_ports_and_priorities() {
    let dns = DnsServer::start().await;
    let records = vec![
        service(10, 8080, "a.test."),
        service(10, 8081, "a.test."),
        service(10, 8080, "gone.test."),
        service(20, 9090, "spare.test."),
    ];
    dns.say(HTTP, SRV, Says::Records(0, records));
    dns.say("a.test.", A, Says::Records(0, vec![address("10.0.0.1")]));
    dns.say(
        "spare.test.",
        A,
        Says::Records(0, vec![address("10.0.0.9")]),
    );
    let orders = Followed::start(&dns, SERVICES);
    let all = [
        "http://10.0.0.1:8080",
        "http://10.0.0.1:8081",
        "http://10.0.0.9:9090",
    ];
    orders.until_urls(&all).await;
    let snapshots = orders.watch.snapshots();
    let known = snapshots.borrow().endpoints.clone();
    let priorities: Vec<u16> = known.iter().map(Endpoint::priority).collect();
    assert_eq!(priorities, [10, 10, 20]);
    // What stands by is not needed to know of the others: what was said of it last stays.
    dns.say("spare.test.", A, Says::Failure);
    dns.say("spare.test.", AAAA, Says::Failure);
    dns.say("a.test.", A, Says::Records(0, vec![address("10.0.0.2")]));
    orders
        .until_urls(&[
            "http://10.0.0.2:8080",
            "http://10.0.0.2:8081",
            "http://10.0.0.9:9090",
        ])
        .await;
    assert_eq!(orders.error(), None);
    dns.say("a.test.", A, Says::NoName(0));
    dns.say(
        "spare.test.",
        A,
        Says::Records(0, vec![address("10.0.0.8")]),
    );
    dns.say("spare.test.", AAAA, Says::NoName(0));
    orders.until_urls(&["http://10.0.0.8:9090"]).await;
    // A target that nobody can tell of is no reason to do without it.
    dns.say("a.test.", A, Says::Failure);
    dns.say("a.test.", AAAA, Says::Failure);
    orders
        .until("a failure", |this| this.error().is_some())
        .await;
    assert_eq!(orders.urls(), ["http://10.0.0.8:9090"]);
    dns.say(HTTP, SRV, Says::Records(0, vec![service(0, 0, ".")]));
    orders.until_urls(&[]).await;
    assert_eq!(orders.error(), None);
}

#[tokio::test]
async fn services_say_their_weights() {
    let dns = DnsServer::start().await;
    let records = vec![
        weighted(10, 300, 8080, "a.test."),
        weighted(10, 100, 8081, "a.test."),
    ];
    dns.say(HTTP, SRV, Says::Records(0, records));
    dns.say("a.test.", A, Says::Records(0, vec![address("10.0.0.1")]));
    let orders = Followed::start(&dns, SERVICES);
    orders
        .until_urls(&["http://10.0.0.1:8080", "http://10.0.0.1:8081"])
        .await;
    let snapshots = orders.watch.snapshots();
    let weights: Vec<u32> = snapshots
        .borrow()
        .endpoints
        .iter()
        .map(Endpoint::weight)
        .collect();
    assert_eq!(weights, [100, 34]);
}

/// An asker of addresses and the resolver that it asks, of this server.
fn asker(dns: &DnsServer, records: Records, name: &str) -> (Asker, TokioResolver) {
    let toml = format!("[discovery.dns]\nport = 1\nservers = [\"{}\"]", dns.address);
    let config = Config::from_toml("interline.toml", &toml).unwrap();
    let section = config.section("discovery.dns");
    let settings = DnsBackend::read(&section, &Rng::new(), &mut Faults::new());
    let resolver = settings.unwrap().0.resolver().unwrap();
    (
        Asker::new(name.to_owned(), records, "http".to_owned()),
        resolver,
    )
}

#[tokio::test]
async fn a_lost_answer_beside_one_without_addresses_is_no_answer() {
    let dns = DnsServer::start().await;
    let (mut asker, resolver) = asker(&dns, Records::Address { port: 1 }, ORDERS);
    dns.say(ORDERS, AAAA, Says::Nothing(3_600));
    dns.say(ORDERS, A, Says::Failure);
    let error = asker.ask(&resolver).await.unwrap_err();
    assert!(error.starts_with("orders.test. A: "), "{error}");
    // That there is nothing is asked for again at once.
    dns.say(ORDERS, A, Says::NoName(3_600));
    let (none, ttl) = asker.ask(&resolver).await.unwrap();
    assert_eq!((none.len(), ttl), (0, None));
    dns.say(ORDERS, A, Says::Records(60, vec![address("10.0.0.1")]));
    let (one, ttl) = asker.ask(&resolver).await.unwrap();
    assert_eq!((one.len(), ttl), (1, Some(60)));
    // What it said last is taken, and asked for again soon.
    dns.say(ORDERS, A, Says::Failure);
    let (one, ttl) = asker.ask(&resolver).await.unwrap();
    assert_eq!((one.len(), ttl), (1, None));
}

#[tokio::test]
async fn a_target_that_fails_takes_nothing_from_what_others_said() {
    let dns = DnsServer::start().await;
    let (mut asker, resolver) = asker(&dns, Records::Srv, HTTP);
    let records = vec![service(1, 1, "a.test."), service(1, 1, "b.test.")];
    dns.say(HTTP, SRV, Says::Records(60, records));
    for (target, ip) in [("a.test.", "10.0.0.1"), ("b.test.", "10.0.0.2")] {
        dns.say(target, A, Says::Records(60, vec![address(ip)]));
        dns.say(target, AAAA, Says::Nothing(60));
    }
    assert_eq!(asker.ask(&resolver).await.unwrap().0.len(), 2);
    dns.say("a.test.", A, Says::Failure);
    dns.say("a.test.", AAAA, Says::Failure);
    asker.ask(&resolver).await.unwrap_err();
    // The first one is back, and now the second one's addresses are lost.
    dns.say("a.test.", A, Says::Records(60, vec![address("10.0.0.1")]));
    dns.say("b.test.", A, Says::Failure);
    assert_eq!(asker.ask(&resolver).await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn targets_that_stand_by_and_say_nothing_do_not_keep_the_others_unknown() {
    let dns = DnsServer::start().await;
    let (mut asker, resolver) = asker(&dns, Records::Srv, HTTP);
    let standbys = (0..20).map(|n| service(2, 1, &format!("standby-{n}.test.")));
    let records = standbys.chain([service(1, 1, "a.test.")]).collect();
    dns.say(HTTP, SRV, Says::Records(60, records));
    dns.say("a.test.", A, Says::Records(60, vec![address("10.0.0.1")]));
    dns.say("a.test.", AAAA, Says::Nothing(60));
    for n in 0..20 {
        for family in [A, AAAA] {
            dns.say(&format!("standby-{n}.test."), family, Says::Silence);
        }
    }
    // One of them alone would take all of a question's time, 2 s, and its repeats.
    let answer = timeout(Duration::from_secs(10), asker.ask(&resolver)).await;
    assert_eq!(answer.expect("in time").unwrap().0.len(), 1);
}

#[tokio::test]
async fn a_target_of_which_nothing_is_known_makes_no_smaller_set() {
    let dns = DnsServer::start().await;
    let (mut asker, resolver) = asker(&dns, Records::Srv, HTTP);
    let records = vec![service(1, 1, "a.test."), service(1, 1, "b.test.")];
    dns.say(HTTP, SRV, Says::Records(60, records));
    for (failing, fine) in [("a.test.", "b.test."), ("b.test.", "a.test.")] {
        dns.say(fine, A, Says::Records(1, vec![address("10.0.0.1")]));
        dns.say(fine, AAAA, Says::Nothing(1));
        for family in [A, AAAA] {
            dns.say(failing, family, Says::Failure);
        }
        asker.known.clear();
        asker.ask(&resolver).await.unwrap_err();
    }
}

#[tokio::test]
async fn answers_too_long_for_a_packet_are_whole() {
    let dns = DnsServer::start().await;
    let records = (0..200).map(|port| service(1, 8_000 + port, "a.test."));
    dns.say(HTTP, SRV, Says::Records(60, records.collect()));
    dns.say("a.test.", A, Says::Records(60, vec![address("10.0.0.1")]));
    let orders = Followed::start(&dns, SERVICES);
    orders
        .until("all of them", |this| this.urls().len() == 200)
        .await;
}

#[tokio::test]
async fn a_server_that_fails_or_is_gone_keeps_the_last_answer() {
    let dns = DnsServer::start().await;
    dns.say(ORDERS, A, Says::Records(0, vec![address("10.0.0.1")]));
    let lines = format!("{ADDRESSES}\ntimeout = \"100ms\"\nttl_max = \"50ms\"");
    let orders = Followed::start(&dns, &lines);
    orders.until_urls(&["http://10.0.0.1:8080"]).await;
    dns.say(ORDERS, A, Says::Failure);
    dns.say(ORDERS, AAAA, Says::Failure);
    orders
        .until("a failure", |this| this.error().is_some())
        .await;
    let error = orders.error().unwrap();
    assert!(error.contains("orders.test. A"), "{error}");
    // For longer than an answer without records would be waited out.
    sleep(Duration::from_millis(400)).await;
    assert_eq!(orders.urls(), ["http://10.0.0.1:8080"]);
    dns.say(ORDERS, A, Says::Records(0, vec![address("10.0.0.1")]));
    dns.say(ORDERS, AAAA, Says::Nothing(0));
    orders
        .until("an answer", |this| this.error().is_none())
        .await;
    let place = dns.address;
    drop(dns);
    orders
        .until("a failure", |this| this.error().is_some())
        .await;
    sleep(Duration::from_millis(400)).await;
    assert_eq!(orders.urls(), ["http://10.0.0.1:8080"]);
    let mut back = DnsServer::start_at(place).await;
    for _ in 0..1_000 {
        if back.is_some() {
            break;
        }
        sleep(Duration::from_millis(5)).await;
        back = DnsServer::start_at(place).await;
    }
    let dns = back.expect("the same port");
    dns.say(ORDERS, A, Says::Records(0, vec![address("10.0.0.2")]));
    dns.say(ORDERS, AAAA, Says::Nothing(0));
    orders.until_urls(&["http://10.0.0.2:8080"]).await;
    assert_eq!(orders.error(), None);
}

#[tokio::test]
async fn that_a_name_is_gone_is_believed_after_a_while() {
    let dns = DnsServer::start().await;
    dns.say(ORDERS, A, Says::Records(0, vec![address("10.0.0.1")]));
    let orders = Followed::start(&dns, ADDRESSES);
    orders.until_urls(&["http://10.0.0.1:8080"]).await;
    let begun = Instant::now();
    dns.say(ORDERS, A, Says::NoName(0));
    orders.until_urls(&[]).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(orders.error(), None);
}

#[tokio::test]
async fn an_answer_is_asked_for_again_within_its_limits() {
    let toml = "[discovery.dns]\nport = 1\nttl_min = \"250ms\"\nttl_max = \"500ms\"";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let section = config.section("discovery.dns");
    let settings = DnsBackend::read(&section, &Rng::new(), &mut Faults::new());
    let settings = settings.unwrap().0;
    for _ in 0..100 {
        let (soon, late) = (settings.next(Some(0)), settings.next(Some(3_600)));
        assert!((225..=250).contains(&soon.as_millis()), "{soon:?}");
        assert!((450..=500).contains(&late.as_millis()), "{late:?}");
        let (first, later) = (settings.pause(0), settings.pause(40));
        assert!((125..=250).contains(&first.as_millis()), "{first:?}");
        assert!((250..=500).contains(&later.as_millis()), "{later:?}");
    }
    // One that may live for long is not asked for again while another one is many times.
    let dns = DnsServer::start().await;
    for (name, ttl) in [("short.test.", 0), ("long.test.", 3_600)] {
        dns.say(name, A, Says::Records(ttl, vec![address("10.0.0.1")]));
        dns.say(name, AAAA, Says::Nothing(ttl));
    }
    let long = Followed::named(&dns, "long", ADDRESSES);
    let short = Followed::named(&dns, "short", ADDRESSES);
    short
        .until("questions", |_| dns.asked("short.test.", A) >= 10)
        .await;
    long.until_urls(&["http://10.0.0.1:8080"]).await;
    assert_eq!(dns.asked("long.test.", A), 1);
    assert_eq!(dns.asked("long.test.", AAAA), 1);
}

#[test]
fn what_is_wrong_is_said_with_what_to_write() {
    for (lines, text) in [
        (
            "",
            "write for example `port = 8080`, or ask for `records = \"srv\"`",
        ),
        (
            "records = \"srv\"\nport = 1",
            "has no effect: SRV records say the port",
        ),
        (
            "port = 1\nname = \"orders\"",
            "does not say where `{service}` stands",
        ),
        ("port = 1\nname = \"{service}..x\"", "is no name of the DNS"),
        (
            "port = 1\nservers = [\"ns.test\"]",
            "`ns.test` is no address",
        ),
        ("port = 1\nservers = []", "name one, or leave it out"),
        ("port = 1\nscheme = \"h t\"", "has no scheme"),
        ("port = 1\nttl_min = \"1m\"", "is more than `ttl_max`"),
    ] {
        let toml = format!("[discovery.dns]\n{lines}");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let section = config.section("discovery.dns");
        assert!(
            DnsBackend::read(&section, &Rng::new(), &mut faults).is_none(),
            "{lines}"
        );
        let error = faults.into_result().unwrap_err().to_string();
        assert!(error.contains(text), "{lines}\n{error}");
        assert!(!error.contains("mistakes"), "{lines}\n{error}");
    }
    assert_eq!(server("10.0.0.2"), "10.0.0.2:53".parse().ok());
    assert_eq!(server("::1"), "[::1]:53".parse().ok());
    assert_eq!(server("[::1]:54"), "[::1]:54".parse().ok());
}
