//! Which of what is linked runs.

use super::*;

#[test]
fn what_is_found_and_not_admitted_is_a_warning() {
    let location = at("audit/src/lib.rs", 9);
    let source = Source::Topic {
        topic: "a.b",
        on_unknown: OnUnknown::Skip,
    };
    let note = leak(SubscriberDescriptor::new(
        "note", "audit", &AUDIT, source, UNSET, bound, location,
    ));
    let mut subscribers = one(&ON_PLACED, UNSET);
    subscribers.push(note);
    let plan = plan("[subscribers.note]\nconcurrency = 1", subscribers);
    assert_eq!(plan.subscriptions.len(), 1);
    assert_eq!(
        warnings(&plan),
        [
            "audit/src/lib.rs:1  audit  found in crate `audit` and not admitted: 1 subscriber not started"
        ]
    );
    assert_eq!(
        plan.warnings[0].help.as_deref(),
        Some("to run it, add `.with(audit::service())` to the app")
    );

    let mut empty = wiring("", vec![note]);
    empty.registry.as_mut().unwrap().services.clear();
    assert_eq!(
        Plan::build(&empty).unwrap_err().to_string(),
        "1 wiring problem (nothing was started)
  app  app  nothing to run; linked: crate `audit` (1 subscriber, not admitted)
            help: add `.with(audit::service())`, which also links the crate; an app that only publishes says `.publish_only()`"
    );
    empty.hosted.push(Service::new(&AUDIT));
    let plan = Plan::build(&empty).unwrap();
    assert_eq!(&*plan.service, "audit");
    assert_eq!(
        plan.subscriptions[0].handlers[0].on_unknown,
        OnUnknown::Skip
    );
}

#[test]
fn several_services_need_a_name() {
    let location = at("orders/src/lib.rs", 9);
    let source = Source::Contracts(&ON_CHARGED);
    let place = leak(SubscriberDescriptor::new(
        "place", "orders", &ORDERS, source, UNSET, bound, location,
    ));
    let mut wiring = wiring("", vec![place]);
    wiring.registry.as_mut().unwrap().services.clear();
    wiring.hosted = vec![Service::new(&ORDERS), Service::new(&AUDIT)];
    assert_eq!(
        problems(&wiring),
        "  app  service  hosts audit, orders and has no name of its own
  help: write `interline::service!(\"..\");` at the root of the program, or `[service] name = \"..\"` in the configuration"
    );
    wiring.config.set("service.name", "shop");
    let plan = Plan::build(&wiring).unwrap();
    assert_eq!(&*plan.service, "shop");
    assert_eq!(
        plan.subscriptions[0].subscription.group,
        Group::Named("orders".into())
    );
}

#[test]
fn run_only_picks_handlers() {
    let subscribers = || {
        vec![
            leak(subscriber("charge", 10, &ON_PLACED, UNSET)),
            leak(subscriber("receipt", 20, &ON_CHARGED, UNSET)),
        ]
    };
    let plan = plan(
        "[run]\nonly = ['receipt']\n[subscribers.charge]\ntimeout = '1s'",
        subscribers(),
    );
    assert_eq!(plan.subscriptions.len(), 1);
    assert_eq!(&*plan.subscriptions[0].handlers[0].name, "receipt");
    assert_eq!(
        report("[run]\nonly = []", subscribers()),
        "  interline.toml:2:1  run.only  picks no subscriber
  help: name one, or remove the key"
    );
}

#[test]
fn what_is_published_and_nobody_here_hears_is_a_warning() {
    let publishing =
        subscriber("charge", 10, &ON_PLACED, UNSET).publishes(|all| all.push(&CHARGED));
    let alone = plan("", vec![leak(publishing)]);
    assert_eq!(
        warnings(&alone),
        [
            "billing/src/handlers.rs:10  charge  `Charged` is published by charge and no subscriber here listens to `billing.charged`; publishing it fails unless another service does"
        ]
    );
    let heard = vec![
        leak(publishing),
        leak(subscriber("receipt", 20, &ON_CHARGED, UNSET)),
    ];
    assert!(warnings(&plan("", heard)).is_empty());
}

#[test]
fn a_state_is_given_once() {
    let mut wiring = wiring("", one(&ON_PLACED, UNSET));
    let here = std::panic::Location::caller();
    wiring.add_state(Mailer, here);
    wiring.add_state(Mailer, here);
    let place = format!("{}:{}", here.file(), here.line());
    let error = Plan::build(&wiring).unwrap_err();
    let problem = &error.problems()[0];
    assert_eq!(problem.place.to_string(), place);
    assert_eq!(problem.subject, "State<Mailer>");
    assert_eq!(
        problem.message,
        "is given twice; a state is found by its type"
    );
}
