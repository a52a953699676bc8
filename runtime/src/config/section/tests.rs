use super::super::Config;
use super::*;

fn toml(text: &str) -> Config {
    Config::from_toml("f.toml", text).unwrap()
}

fn environment(value: &str) -> Config {
    Config::from_environment([("INTERLINE__S__K", value)]).unwrap()
}

/// Reads `k` in `[s]` and gives what was read and the messages and helps of all faults.
fn read<T>(
    config: &Config,
    getter: impl FnOnce(&Section<'_>, &mut Faults) -> Option<T>,
) -> (Option<T>, Vec<String>) {
    let mut faults = Faults::new();
    let value = getter(&config.section("s"), &mut faults);
    config.finish(&mut faults);
    let said = faults.iter().map(|fault| match fault.help() {
        Some(help) => format!("{}: {help}", fault.message()),
        None => fault.message().to_owned(),
    });
    let said = said.collect();
    (value, said)
}

fn refused<T: std::fmt::Debug + PartialEq>(
    config: &Config,
    getter: impl FnOnce(&Section<'_>, &mut Faults) -> Option<T>,
    message: &str,
) {
    assert_eq!(read(config, getter), (None, vec![message.to_owned()]));
}

fn accepted<T: std::fmt::Debug + PartialEq>(
    config: &Config,
    getter: impl FnOnce(&Section<'_>, &mut Faults) -> Option<T>,
    value: T,
) {
    assert_eq!(read(config, getter), (Some(value), vec![]));
}

#[test]
fn an_absent_key_is_nothing_and_no_fault() {
    for config in [Config::new(), toml("[s]")] {
        let mut faults = Faults::new();
        let section = config.section("s");
        assert_eq!(section.string("k", &mut faults), None);
        assert_eq!(section.bool("k", &mut faults), None);
        assert_eq!(section.integer::<u32>("k", .., &mut faults), None);
        assert_eq!(section.float("k", .., &mut faults), None);
        assert_eq!(section.duration("k", .., &mut faults), None);
        assert_eq!(section.size("k", .., &mut faults), None);
        assert_eq!(section.choice("k", &["a"], &mut faults), None);
        assert_eq!(section.strings("k", &mut faults), None);
        assert!(section.secret("k", &mut faults).is_none());
        assert!(!section.section("k", &mut faults).is_present());
        assert!(section.entries(&mut faults).is_empty());
        assert!(!section.contains("k"));
        assert!(faults.is_empty());
    }
}

#[test]
fn texts() {
    accepted(&toml("s.k = 'x'"), |s, f| s.string("k", f), "x".to_owned());
    accepted(&environment("5"), |s, f| s.string("k", f), "5".to_owned());
    refused(
        &toml("s.k = 5"),
        |s, f| s.string("k", f),
        "must be a text, not `5`: put the value in quotes",
    );
    refused(
        &toml("s.k = ['x']"),
        |s, f| s.string("k", f),
        "must be a text, not a list",
    );
}

#[test]
fn truths() {
    accepted(&toml("s.k = true"), |s, f| s.bool("k", f), true);
    accepted(&environment("false"), |s, f| s.bool("k", f), false);
    refused(
        &toml("s.k = 'true'"),
        |s, f| s.bool("k", f),
        "must be `true` or `false`, not the text `true`: write it without quotes",
    );
    refused(
        &environment("yes"),
        |s, f| s.bool("k", f),
        "must be `true` or `false`, not the text `yes`",
    );
}

#[test]
fn whole_numbers() {
    let number = |s: &Section<'_>, f: &mut Faults| s.integer::<u16>("k", 1..=500, f);
    accepted(&toml("s.k = 0x14"), number, 20);
    accepted(&environment(" 20 "), number, 20);
    accepted(&Config::new().with("s.k", 20), number, 20);
    let cases = [
        (toml("s.k = 0"), "must be at least 1, not 0"),
        (toml("s.k = 501"), "must be at most 500, not 501"),
        (toml("s.k = -1"), "must be at least 1, not -1"),
        (toml("s.k = 70000"), "must be at most 500, not 70000"),
        (toml("s.k = 1.5"), "must be a whole number, not `1.5`"),
        (
            toml("s.k = '20'"),
            "must be a whole number, not the text `20`: write it without quotes",
        ),
        (toml("s.k = {}"), "must be a whole number, not a section"),
        (
            environment("ten"),
            "must be a whole number, not the text `ten`",
        ),
        (environment(""), "must be a whole number, not an empty text"),
    ];
    for (config, message) in cases {
        refused(&config, number, message);
    }
    let open = |s: &Section<'_>, f: &mut Faults| s.integer::<u16>("k", .., f);
    refused(&toml("s.k = -1"), open, "is too small: -1");
    refused(&toml("s.k = 70000"), open, "is too large: 70000");
    let less = |s: &Section<'_>, f: &mut Faults| s.integer::<i64>("k", ..10, f);
    refused(&toml("s.k = 10"), less, "must be less than 10, not 10");
    accepted(&toml("s.k = -5"), less, -5);
}

#[test]
fn numbers_with_a_fraction() {
    let number = |s: &Section<'_>, f: &mut Faults| s.float("k", 0.0..=1.0, f);
    accepted(&toml("s.k = 0.5"), number, 0.5);
    accepted(&toml("s.k = 1"), number, 1.0);
    accepted(&environment("0.25"), number, 0.25);
    refused(&toml("s.k = 1.5"), number, "must be at most 1, not 1.5");
    refused(&toml("s.k = inf"), number, "must be at most 1, not inf");
    refused(&toml("s.k = nan"), number, "must be a number, not `NaN`");
    refused(
        &environment("NaN"),
        number,
        "must be a number, not the text `NaN`",
    );
}

#[test]
fn durations() {
    let any = |s: &Section<'_>, f: &mut Faults| s.duration("k", .., f);
    accepted(&toml("s.k = '1m30s'"), any, Duration::from_secs(90));
    accepted(&toml("s.k = '0s'"), any, Duration::ZERO);
    accepted(&environment("250ms"), any, Duration::from_millis(250));
    let set = Config::new().with("s.k", Duration::from_millis(1500));
    accepted(&set, any, Duration::from_millis(1500));
    refused(
        &toml("s.k = 30"),
        any,
        "must be a duration, not `30`: a duration has a unit: write `\"30s\"` or `\"30ms\"`",
    );
    refused(
        &environment("30"),
        any,
        "`30` has a number without a unit; write `30s` or `30ms`",
    );
    refused(
        &toml("s.k = true"),
        any,
        "must be a duration such as `\"10s\"`, not `true`",
    );
    refused(
        &toml("s.k = '0s'"),
        |s, f| s.nonzero_duration("k", f),
        "must be more than 0s, not 0s",
    );
    let most = Duration::from_secs(3600);
    refused(
        &toml("s.k = '90m'"),
        |s, f| s.duration("k", ..=most, f),
        "must be at most 1h, not 1h30m",
    );
}

#[test]
fn sizes() {
    let any = |s: &Section<'_>, f: &mut Faults| s.size("k", 1.., f);
    accepted(&toml("s.k = '64KiB'"), any, 65_536);
    accepted(&toml("s.k = 512"), any, 512);
    accepted(&environment("10MB"), any, 10_000_000);
    refused(&toml("s.k = '0B'"), any, "must be at least 1B, not 0B");
    refused(
        &toml("s.k = -1"),
        any,
        "must be a size such as `\"10MB\"`, not `-1`",
    );
    refused(
        &toml("s.k = 'big'"),
        any,
        "`big` is not a size such as `512B`, `64KiB` or `10MB`",
    );
}

#[test]
fn choices() {
    let mode = |s: &Section<'_>, f: &mut Faults| s.choice("k", &["apply", "verify", "off"], f);
    accepted(&toml("s.k = 'verify'"), mode, "verify");
    accepted(&environment("off"), mode, "off");
    refused(
        &toml("s.k = 'aply'"),
        mode,
        "must be one of `\"apply\"`, `\"verify\"`, `\"off\"`, not the text `aply`: \
         did you mean `\"apply\"`?",
    );
    refused(
        &toml("s.k = false"),
        mode,
        "must be one of `\"apply\"`, `\"verify\"`, `\"off\"`, not `false`",
    );
    refused(
        &toml("s.k = 'memory'"),
        |s, f| s.choice("k", &["rabbitmq"], f),
        "must be `\"rabbitmq\"`, not the text `memory`",
    );
}

#[test]
fn lists() {
    let list = |s: &Section<'_>, f: &mut Faults| s.strings("k", f);
    let two = || vec!["a".to_owned(), "b".to_owned()];
    accepted(&toml("s.k = ['a', 'b']"), list, two());
    accepted(&environment(" a, b,"), list, two());
    accepted(&environment(""), list, vec![]);
    accepted(&Config::new().with("s.k", ["a", "b"]), list, two());
    accepted(&Config::new().with("s.k", vec!["a", "b"]), list, two());
    refused(
        &toml("s.k = 'a'"),
        list,
        "must be a list, not the text `a`: write `[\"a\"]`",
    );
    refused(
        &toml("s.k = ['a', 5]"),
        list,
        "must be a list of texts, not `5`",
    );
}

#[test]
fn secrets_have_three_forms() {
    let shown = |text: &str| {
        let (secret, said) = read(&toml(text), |s, f| s.secret("password", f));
        assert!(said.is_empty(), "{said:?}");
        let secret = secret.unwrap();
        assert_eq!(secret.key(), "s.password");
        secret.to_string()
    };
    assert_eq!(shown("s.password = 'canary'"), "***");
    assert_eq!(
        shown("s.password = { file = '/run/secrets/x' }"),
        "file /run/secrets/x"
    );
    assert_eq!(shown("[s.password]\nenv = 'X'"), "environment variable X");

    let config = Config::from_environment([("INTERLINE__S__PASSWORD", "canary")]).unwrap();
    let (secret, said) = read(&config, |s, f| s.secret("password", f));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(secret.unwrap().read().unwrap().expose(), "canary");
}

#[test]
fn a_wrong_secret_is_refused_without_being_shown() {
    let forms = "must be a text, `{ file = \"..\" }` or `{ env = \"..\" }`";
    let cases = [
        ("s.password = 31337", forms.to_owned()),
        ("s.password = ['31337']", forms.to_owned()),
        ("s.password = { fil = '31337' }", forms.to_owned()),
        ("s.password = { file = 31337 }", forms.to_owned()),
        ("s.password = {}", format!("{forms}, and only one")),
        (
            "s.password = { file = '31337', env = 'X' }",
            format!("{forms}, and only one"),
        ),
    ];
    for (text, message) in cases {
        let (secret, said) = read(&toml(text), |s, f| s.secret("password", f));
        assert!(secret.is_none());
        assert_eq!(said, [message], "{text}");
    }
}

#[test]
fn no_getter_shows_a_value_under_the_name_of_a_secret() {
    for text in ["'canary'", "'13ns canary'", "7531", "75.31", "['canary']"] {
        let config = toml(&format!("s.password = {text}"));
        let mut faults = Faults::new();
        let s = config.section("s");
        s.bool("password", &mut faults);
        s.integer::<u8>("password", .., &mut faults);
        s.float("password", 0.0..1.0, &mut faults);
        s.duration("password", .., &mut faults);
        s.size("password", ..1, &mut faults);
        s.choice("password", &["a"], &mut faults);
        s.strings("password", &mut faults);
        s.section("password", &mut faults);
        s.entries(&mut faults);
        let report = faults.into_result().unwrap_err().to_string();
        for secret in ["canary", "7531", "75.31"] {
            assert!(!report.contains(secret), "{report}");
        }
    }
}

#[test]
fn a_url_in_a_message_has_no_password() {
    refused(
        &toml("s.k = 'amqp://u:canary@h'"),
        |s, f| s.integer::<u8>("k", .., f),
        "must be a whole number, not the text `amqp://u:***@h`",
    );
}

#[test]
fn sections_below_and_entries_know_their_place() {
    let config = toml(
        "[brokers]\ndefault = 'main'\n[brokers.second]\n[brokers.main]\n[brokers.main.retry]\nfirst = '1s'",
    );
    let mut faults = Faults::new();
    let brokers = config.section("brokers");
    assert_eq!(
        brokers.string("default", &mut faults).as_deref(),
        Some("main")
    );
    let entries = brokers.entries(&mut faults);
    let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["main", "second"]);
    let main = &entries[0].1;
    assert_eq!(main.path(), "brokers.main");
    assert_eq!(main.name(), "main");
    assert_eq!(main.origin().to_string(), "f.toml:4:10");
    let retry = main.section("retry", &mut faults);
    assert_eq!(retry.keys().collect::<Vec<_>>(), ["first"]);
    assert!(retry.nonzero_duration("first", &mut faults).is_some());
    config.finish(&mut faults);
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn a_value_where_a_section_belongs_is_one_fault() {
    let expected = "1 mistake in the configuration\n\
                    f.toml:1:3  s.main  must be a section, not the text `amqp://h`\n    \
                    help: write [s.main] and its keys below it";
    let config = toml("s.main = 'amqp://h'");
    let mut faults = Faults::new();
    assert!(config.section("s").entries(&mut faults).is_empty());
    assert!(
        !config
            .section("s")
            .section("main", &mut faults)
            .is_present()
    );
    config.finish(&mut faults);
    assert_eq!(faults.into_result().unwrap_err().to_string(), expected);

    let mut faults = Faults::new();
    assert!(
        config
            .section("s.main")
            .string("url", &mut faults)
            .is_none()
    );
    config.finish(&mut faults);
    assert_eq!(faults.into_result().unwrap_err().to_string(), expected);
}

#[test]
fn a_readers_own_fault_points_at_the_key_or_at_the_section() {
    let config = toml("[s]\nk = 1");
    let section = config.section("s");
    assert_eq!(
        section.fault("k", "is odd").to_string(),
        "f.toml:2:1  s.k  is odd"
    );
    assert_eq!(
        section.fault("url", "is missing").to_string(),
        "f.toml:1:2  s.url  is missing"
    );
    for tls in [
        config.section("s.tls"),
        section.section("tls", &mut Faults::new()),
    ] {
        assert_eq!(
            tls.fault("ca", "is missing").to_string(),
            "f.toml:1:2  s.tls.ca  is missing"
        );
    }
    assert_eq!(
        config.section("t").fault("url", "is missing").to_string(),
        "configuration  t.url  is missing"
    );
}

#[test]
fn keys_that_nobody_asked_for_are_reported_with_what_was_meant() {
    let config = toml(
        "verbose = true\n[broker.main]\nurl = 'x'\n[brokers.main]\nprefetsh = 1\ncolour = 2\n\
         [brokers.main.retri]\nx = 1\n[brokers.main.tls]\nca = 'x'\nkee = 'y'\n",
    );
    let mut faults = Faults::new();
    for (_, broker) in config.section("brokers").entries(&mut faults) {
        broker.integer::<u16>("prefetch", .., &mut faults);
        broker.section("retry", &mut faults);
        let tls = broker.section("tls", &mut faults);
        tls.string("ca", &mut faults);
        tls.string("key", &mut faults);
    }
    config.finish(&mut faults);
    assert_eq!(
        faults.into_result().unwrap_err().to_string(),
        "6 mistakes in the configuration\n\
         f.toml:1:1  verbose  unknown key `verbose`\n    \
             help: known here: brokers\n\
         f.toml:2:2  broker  unknown section [broker]\n    \
             help: did you mean `brokers`?\n\
         f.toml:5:1  brokers.main.prefetsh  unknown key `prefetsh` in [brokers.main]\n    \
             help: did you mean `prefetch`?\n\
         f.toml:6:1  brokers.main.colour  unknown key `colour` in [brokers.main]\n    \
             help: known here: prefetch, retry, tls\n\
         f.toml:7:15  brokers.main.retri  unknown section `retri` in [brokers.main]\n    \
             help: did you mean `retry`?\n\
         f.toml:11:1  brokers.main.tls.kee  unknown key `kee` in [brokers.main.tls]\n    \
             help: did you mean `key`?"
    );
}

#[test]
fn an_unknown_environment_variable_is_named() {
    let config = environment("x");
    let mut faults = Faults::new();
    config.section("s").string("key", &mut faults);
    config.finish(&mut faults);
    assert_eq!(
        faults.iter().next().unwrap().to_string(),
        "environment variable INTERLINE__S__K  s.k  unknown key `k` in [s]\n    \
         help: known here: key"
    );
}

#[test]
fn an_opened_section_of_which_nothing_was_read_is_unknown_key_by_key() {
    let config = toml("[s.a]\nx = 1\ny = 2");
    let mut faults = Faults::new();
    config.section("s").entries(&mut faults);
    config.finish(&mut faults);
    let keys: Vec<&str> = faults.iter().map(Fault::key).collect();
    assert_eq!(keys, ["s.a.x", "s.a.y"]);
}

#[test]
fn a_section_can_be_accepted_unread() {
    let config = toml("[s.a]\nx = 1\n[s.a.b]\ny = 2");
    let mut faults = Faults::new();
    for (_, section) in config.section("s").entries(&mut faults) {
        section.accept_all(&mut faults);
    }
    config.finish(&mut faults);
    assert!(faults.is_empty(), "{faults:?}");
}
