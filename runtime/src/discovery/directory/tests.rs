use tempfile::TempDir;

use super::*;

fn backend(place: &TempDir, ttl: Duration) -> DirectoryBackend {
    DirectoryBackend {
        path: Arc::new(place.path().join("services")),
        ttl,
        poll: Duration::from_millis(10),
    }
}

fn instance(id: &str, url: &str) -> Arc<ServiceInstance> {
    let endpoint = Endpoint::parse(url).unwrap().with_zone("eu").with_tag("x");
    Arc::new(ServiceInstance::new("orders", id, endpoint))
}

const TTL: Duration = Duration::from_secs(15);

#[tokio::test]
async fn what_is_registered_is_found_until_it_is_taken_away() {
    let place = TempDir::new().unwrap();
    let backend = backend(&place, TTL);
    let error = backend.look("orders").unwrap_err();
    assert!(error.contains("services cannot be read"), "{error}");
    let (one, two) = (instance("a.1", "http://a:1"), instance("b-2", "http://b:1"));
    backend.register(Arc::clone(&one)).await.unwrap();
    backend.register(Arc::clone(&two)).await.unwrap();
    // Again, as after it was thought lost.
    backend.register(Arc::clone(&two)).await.unwrap();
    let found = backend.look("orders").unwrap();
    let expected: EndpointSet = [one.endpoint.clone(), two.endpoint.clone()]
        .into_iter()
        .collect();
    assert_eq!(found, expected);
    assert!(backend.look("other").unwrap().is_empty());
    backend.heartbeat(Arc::clone(&one)).await.unwrap();
    backend.deregister(Arc::clone(&one)).await.unwrap();
    backend.deregister(Arc::clone(&one)).await.unwrap();
    assert_eq!(backend.look("orders").unwrap().len(), 1);
    let error = backend.heartbeat(one).await.unwrap_err();
    assert_eq!(error, RegistrarError::Unknown);
}

#[tokio::test]
async fn who_died_is_gone_after_its_time_and_swept_away_later() {
    let place = TempDir::new().unwrap();
    let backend = backend(&place, TTL);
    let (dead, alive) = (
        instance("dead", "http://a:1"),
        instance("alive", "http://b:1"),
    );
    backend.register(Arc::clone(&dead)).await.unwrap();
    backend.register(Arc::clone(&alive)).await.unwrap();
    let path = backend.file(&dead).unwrap();
    let touch = |ago: Duration| {
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    };
    touch(TTL + Duration::from_secs(1));
    assert_eq!(backend.look("orders").unwrap().len(), 1);
    // A late heartbeat is better than none.
    backend.heartbeat(Arc::clone(&dead)).await.unwrap();
    assert_eq!(backend.look("orders").unwrap().len(), 2);
    touch(TTL * 10 + Duration::from_secs(1));
    backend.register(alive).await.unwrap();
    assert!(!path.exists());
    assert_eq!(backend.look("orders").unwrap().len(), 1);
}

#[tokio::test]
async fn what_others_keep_in_the_folder_is_theirs() {
    let place = TempDir::new().unwrap();
    let backend = backend(&place, TTL);
    let folder = place.path().join("services").join("orders");
    fs::create_dir_all(&folder).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let lay = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        let file = fs::File::options().append(true).open(folder.join(name));
        file.unwrap().set_modified(long_ago).unwrap();
    };
    let theirs = [
        ("notes.txt", "not ours"),
        ("upload.new", "not ours"),
        ("report.q.new", "not ours"),
        ("broken.json", "{\"orders\": ["),
        ("settings.json", "{\"colour\": \"blue\"}"),
        (
            "list.json",
            "{\"orders\": [\"http://a:1\", \"http://b:1\"]}",
        ),
        ("other.json", "{\"mail\": [\"http://a:1\"]}"),
        (
            "all.json",
            "{\"orders\": [\"http://a:1\"], \"mail\": [\"http://a:1\"]}",
        ),
    ];
    for (name, text) in theirs {
        lay(name, text);
    }
    lay("dead.json", "{\"orders\": [\"http://c:1\"]}");
    lay("dead.2.1f00ab.new", "{\"orders\": [");
    let alive = instance("alive", "http://b:1");
    backend.register(Arc::clone(&alive)).await.unwrap();
    let left = fs::read_dir(&folder).unwrap();
    let left: std::collections::BTreeSet<_> = left
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = theirs.iter().map(|(name, _)| (*name).to_owned());
    let expected = expected.chain(["alive.json".to_owned()]).collect();
    assert_eq!(left, expected);
    let file = backend.file(&alive).unwrap();
    assert!(is_unfinished(&unfinished(&file)) && !is_unfinished(&file));
}

#[tokio::test]
async fn what_leads_out_of_the_directory_is_refused() {
    let place = TempDir::new().unwrap();
    let backend = backend(&place, TTL);
    for id in ["../x", "a/b", "", ".hidden", "a b"] {
        let error = backend
            .register(instance(id, "http://a:1"))
            .await
            .unwrap_err();
        let RegistrarError::Failed(why) = error else {
            panic!("{id}: {error}");
        };
        assert!(why.contains("cannot be the name of a file"), "{id}: {why}");
    }
    assert!(backend.look("../x").is_err());
}

#[tokio::test]
async fn a_broken_file_is_told_with_its_name() {
    let place = TempDir::new().unwrap();
    let backend = backend(&place, TTL);
    backend.register(instance("a", "http://a:1")).await.unwrap();
    let folder = place.path().join("services").join("orders");
    fs::write(folder.join("half.json"), "{\"orders\": [").unwrap();
    fs::write(folder.join("note.txt"), "not ours").unwrap();
    let error = backend.look("orders").unwrap_err();
    assert!(error.contains("half.json: EOF"), "{error}");
}
