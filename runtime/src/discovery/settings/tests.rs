use super::*;

const FILE: &str = "[discovery.local]\nkind = \"file\"\npath = \"endpoints.toml\"\n";

/// Reads the service `orders` of a configuration with these lines: whom it asks, or what is wrong.
fn read(toml: &str) -> Result<Vec<String>, String> {
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let mut faults = Faults::new();
    let backends = Backends::read(&config, &"billing".into(), &[], &Rng::new(), &mut faults);
    let service = config.section("services.orders");
    let place = backends.whereabouts(&service, (&["http"], &["http"]), None, &mut faults);
    config.finish(&mut faults);
    faults.into_result().map_err(|error| error.to_string())?;
    Ok(match place.expect("no fault, so a place") {
        Whereabouts::Fixed(endpoints) => endpoints.iter().map(ToString::to_string).collect(),
        Whereabouts::Watched(watch) => vec![watch.describe()],
    })
}

#[test]
fn a_service_is_found_by_what_is_there() {
    assert_eq!(
        read("services.orders.urls = [\"http://a\"]").unwrap(),
        ["http://a"]
    );
    let found = ["found by `local` (file)"];
    assert_eq!(read(&format!("{FILE}[services.orders]\n")).unwrap(), found);
    let named = format!("{FILE}[services.orders.discovery]\nbackends = [\"local\"]");
    assert_eq!(read(&named).unwrap(), found);
    // Addresses in the configuration need no backend, and can stand behind one.
    let fixed = format!("{FILE}[services.orders]\nurls = [\"http://a\"]");
    assert_eq!(read(&fixed).unwrap(), ["http://a"]);
    let both = format!("{fixed}\ndiscovery.patience = \"1m\"");
    assert_eq!(
        read(&both).unwrap(),
        ["found by `local` (file), `urls` (static)"]
    );
}

#[test]
fn what_is_wrong_is_said_once_with_what_to_write() {
    for (toml, mistakes, text) in [
        (
            "[services.orders]".to_owned(),
            1,
            "services.orders.urls  is missing",
        ),
        (
            "[services.orders.discovery]".to_owned(),
            1,
            "write `[discovery.local]` with `kind = \"file\"`",
        ),
        (
            format!("{FILE}[services.orders.discovery]\nbackends = [\"locl\"]"),
            1,
            "did you mean `local`?",
        ),
        (
            format!("{FILE}[services.orders.discovery]\nbackends = [\"local\", \"local\"]"),
            1,
            "names `local` twice",
        ),
        (
            format!("{FILE}[services.orders.discovery]\nmerge = \"unoin\"\nname = \"\"\nx = 1"),
            3,
            "did you mean `\"union\"`?",
        ),
        (
            format!("{FILE}[discovery.other]\nkind = \"file\"\npath = \"x\"\n[services.orders]"),
            1,
            "write for example `backends = [\"local\"]`; there is `local`, `other`",
        ),
        // The section is what is wrong, not also the service that needs it.
        (
            "[discovery.local]\nkind = \"fil\"\npath = 1\n[services.orders.discovery]\n\
             backends = [\"local\"]"
                .to_owned(),
            1,
            "did you mean `\"file\"`?",
        ),
        (
            "[discovery.local]\nkind = \"file\"\npoll = \"1ms\"\n[services.orders.discovery]"
                .to_owned(),
            2,
            "discovery.local.path  is missing",
        ),
    ] {
        let error = read(&toml).unwrap_err();
        assert!(error.contains(text), "{toml}\n{error}");
        let found = if mistakes == 1 {
            error.contains("1 mistake\n") || !error.contains("mistakes")
        } else {
            error.contains(&format!("{mistakes} mistakes"))
        };
        assert!(found, "{toml}\n{error}");
    }
}
