use tempfile::TempDir;

use super::*;
use crate::clock::Rng;
use crate::config::{Config, Faults};
use crate::discovery::settings::{Backends, Whereabouts};
use crate::discovery::{Endpoint, ServiceWatch};

/// A directory with a file of endpoints and the cache.
struct Place(TempDir);

impl Place {
    fn list(&self, text: &str) {
        fs::write(self.0.path().join("new"), text).unwrap();
        fs::rename(self.0.path().join("new"), self.0.path().join("list.toml")).unwrap();
    }

    fn kept(&self) -> PathBuf {
        self.0.path().join("kept").join("billing.orders%2fv1.json")
    }

    /// Follows `orders/v1`, with these further lines.
    fn follow(&self, lines: &str) -> (Arc<ServiceWatch>, tokio::task::JoinSet<()>) {
        let (kept, list) = (self.0.path().join("kept"), self.0.path().join("list.toml"));
        let toml = format!(
            "[discovery]\ncache = {kept:?}\n[discovery.local]\nkind = \"file\"\npath = {list:?}\n\
             poll = \"10ms\"\n[services.\"orders/v1\".discovery]\n{lines}"
        );
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let backends = Backends::read(&config, &"billing".into(), &[], &Rng::new(), &mut faults);
        let section = config.section("services.\"orders/v1\"");
        let place = backends.whereabouts(&section, (&["http"], &["http"]), None, &mut faults);
        config.finish(&mut faults);
        faults.into_result().unwrap();
        let Some(Whereabouts::Watched(watch)) = place else {
            panic!("not followed");
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&watch).run());
        (watch, tasks)
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn urls(watch: &ServiceWatch) -> Vec<String> {
    let snapshots = watch.snapshots();
    let snapshot = snapshots.borrow();
    snapshot.endpoints.iter().map(ToString::to_string).collect()
}

const LIST: &str = "\"orders/v1\" = [{ url = \"http://a:1\", zone = \"eu\", version = \"1.2.0\", \
                    tags = [\"x\"], metadata = { k = \"v\" } }, \"http://b:1\"]";

#[tokio::test]
async fn a_start_without_the_backend_takes_what_was_kept_and_tells_its_age() {
    let place = Place(TempDir::new().unwrap());
    place.list(LIST);
    let (watch, tasks) = place.follow("");
    until("a first answer", || watch.status().resolved).await;
    assert_eq!(watch.status().cached, None);
    until("a file", || place.kept().exists()).await;
    drop((watch, tasks));
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    let kept = fs::File::options().append(true).open(place.kept()).unwrap();
    kept.set_modified(an_hour_ago).unwrap();
    fs::remove_file(place.0.path().join("list.toml")).unwrap();

    let (watch, _tasks) = place.follow("");
    until("what was kept", || watch.status().resolved).await;
    assert_eq!(urls(&watch), ["http://a:1", "http://b:1"]);
    let age = watch.status().cached.unwrap().as_secs();
    assert!((3_600..3_700).contains(&age), "{age}");
    assert!(watch.status().sources[0].error.is_some());
    // It is as it was told: a filter finds what it asks for.
    let wanted = "only = { zones = [\"eu\"], version = \"1\", tags = [\"x\"], metadata.k = \"v\" }";
    let (filtered, _more_tasks) = place.follow(wanted);
    until("what was kept", || filtered.status().resolved).await;
    assert_eq!(urls(&filtered), ["http://a:1"]);
    // Nobody has said that it still holds.
    let modified = fs::metadata(place.kept()).unwrap().modified().unwrap();
    assert!(modified <= an_hour_ago + Duration::from_secs(1));

    place.list("\"orders/v1\" = [\"http://c:1\"]");
    until("a new answer", || urls(&watch) == ["http://c:1"]).await;
    assert_eq!(watch.status().cached, None);
    until("a new file", || {
        fs::read_to_string(place.kept())
            .unwrap()
            .contains("http://c:1")
    })
    .await;
    let left: Vec<_> = fs::read_dir(place.0.path().join("kept")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_broken_cache_is_no_cache() {
    let place = Place(TempDir::new().unwrap());
    fs::create_dir(place.0.path().join("kept")).unwrap();
    fs::write(place.kept(), "{\"orders/v1\": [").unwrap();
    let (watch, _tasks) = place.follow("");
    until("a failure", || watch.status().sources[0].error.is_some()).await;
    sleep(Duration::from_millis(100)).await;
    assert!(!watch.status().resolved);
    place.list(LIST);
    until("an answer", || watch.status().resolved).await;
}

#[test]
fn what_is_kept_is_what_is_read() {
    let place = TempDir::new().unwrap();
    let cache = Cache::new(place.path(), "x.y", &"a b".into());
    assert!(cache.path.ends_with("x%2ey.a%20b.json"), "{:?}", cache.path);
    let other = Cache::new(place.path(), "x", &"y.a b".into());
    assert_ne!(cache.path, other.path);
    let endpoints: EndpointSet = (0..100)
        .map(|number| {
            let endpoint = Endpoint::parse(&format!("http://a:{number}")).unwrap();
            endpoint
                .with_tag("x")
                .with_metadata("k", "\"v\"")
                .with_version("1")
                .with_host(&format!("a-{number}.test"))
                .unwrap()
                .with_priority(number as u16 % 3)
                .with_weight(1 + number)
        })
        .collect();
    cache.write_now(&endpoints).unwrap();
    assert_eq!(cache.read_now().unwrap().0, endpoints);
}
