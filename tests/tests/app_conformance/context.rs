//! Correlation and trace, from outside in and out again; middleware around handlers and publishes.

use std::sync::Arc;

use interline::handling::{
    BoxFuture, Middleware, Next, PublishError, PublishMiddleware, PublishNext, Receipt,
};
use interline::message::{Incoming, Outgoing};
use interline::prelude::*;

use crate::bench::Seen;
use crate::probe::Probe;
use crate::work::{Made, Work};
use crate::world::{Outcome as Ending, World, cases};

cases![
    middleware_runs_around_handlers_and_publishes,
    what_came_from_outside_is_passed_on,
];

#[subscriber(group = "first")]
async fn first(work: Work, publisher: Publisher) -> Result<Middle, PublishError> {
    publisher
        .publish(&Made::new(&work.id, "by publisher"))
        .await?;
    Ok(Middle { of: work.id })
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "middle")]
struct Middle {
    of: String,
}

#[subscriber(group = "second")]
async fn second(middle: Middle, out: Out<Made>) -> Result<(), PublishError> {
    out.send(Made::new(&middle.of, "at last"))
}

const BODY: &str = r#"{"id":"w","key":"k","act":""}"#;

fn trace_of(seen: &Seen) -> (String, String, String) {
    let text = seen.header("traceparent");
    let parts: Vec<&str> = text.split('-').collect();
    let ["00", trace, span, flags] = parts[..] else {
        panic!("`{text}` is no traceparent");
    };
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

async fn what_came_from_outside_is_passed_on(world: Arc<World>) -> Ending {
    let mut made = world.listen("made").await?;
    let mut middle = world.listen("middle").await?;
    let setup = world.app("1").register::<first>().register::<second>();
    let process = setup.start().await;
    let given = [
        ("message-id", "foreign-1"),
        ("correlation-id", "order-7"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ),
        ("tracestate", "vendor=1"),
        ("baggage", "tenant=acme"),
    ];
    world
        .publish("work", BODY, given.into_iter().collect())
        .await;
    let [direct, last] = &made.take(2).await[..] else {
        unreachable!("two were taken");
    };
    let middle = middle.next().await;
    let middle_id = middle.header("message-id");
    let mut spans = vec!["b7ad6b7169203331".to_owned()];
    for (seen, cause) in [
        (direct, "foreign-1"),
        (&middle, "foreign-1"),
        (last, &*middle_id),
    ] {
        assert_eq!(seen.header("correlation-id"), "order-7");
        assert_eq!(seen.header("causation-id"), cause);
        assert_eq!(seen.header("sender"), "conform");
        let (trace, span, flags) = trace_of(seen);
        assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(flags, "00", "whether it is sampled was decided before");
        assert_eq!(seen.header("tracestate"), "vendor=1");
        assert_eq!(seen.header("baggage"), "tenant=acme");
        spans.push(span);
    }
    assert!(spans[1] != spans[0] && spans[3] != spans[2], "{spans:?}");

    // Nobody said anything: it begins here. Nonsense is not passed on.
    for headers in [
        Headers::new(),
        [
            ("correlation-id", "spaces are not allowed"),
            ("traceparent", "nonsense"),
        ]
        .into_iter()
        .collect(),
    ] {
        world.publish("work", BODY, headers).await;
        let [direct, last] = &made.take(2).await[..] else {
            unreachable!("two were taken");
        };
        let correlation = direct.header("correlation-id");
        assert_eq!(correlation, direct.header("causation-id"));
        assert_eq!(correlation, last.header("correlation-id"));
        let ((trace, _, flags), (again, ..)) = (trace_of(direct), trace_of(last));
        assert_eq!((&trace, &*flags), (&again, "01"));
    }
    process.stop().await;
    world.dead("first", "work", 0).await;
    Ok(())
}

struct Around(&'static str, Probe);

impl Middleware for Around {
    fn handle<'a>(&'a self, incoming: &'a mut Incoming, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Self(name, probe) = self;
            probe.note(format!("{name} before #{}", incoming.attempt));
            incoming.headers.set("x-passed", *name);
            if incoming.headers.text("x-test").is_some() {
                return Outcome::discard("a test message");
            }
            let outcome = next.run(incoming).await;
            let failed = outcome.failed.as_ref().map(|failed| failed.text.clone());
            probe.note(format!("{name} after {:?} {failed:?}", outcome.fate));
            outcome
        })
    }
}

impl PublishMiddleware for Around {
    fn publish<'a>(
        &'a self,
        mut outgoing: Outgoing,
        next: PublishNext<'a>,
    ) -> BoxFuture<'a, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let Self(name, probe) = self;
            probe.note(format!("{name} publishes to {}", outgoing.topic));
            outgoing.headers.set("x-published", *name);
            let receipt = next.run(outgoing).await;
            probe.note(format!("{name} published: {}", receipt.is_ok()));
            receipt
        })
    }
}

#[subscriber(group = "wrapped", retry(attempts = 2, first = "100ms"))]
async fn wrapped(
    work: Work,
    #[header("x-passed")] passed: String,
    meta: Meta,
    probe: State<Probe>,
) -> Result<Made, AnyError> {
    probe.note(format!("handles after {passed}"));
    match meta.attempt() {
        1 => Err("once".into()),
        _ => Ok(Made::new(&work.id, "made")),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn middleware_runs_around_handlers_and_publishes(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut made = world.listen("made").await?;
    let around = |name| Around(name, probe.clone());
    let (outer, inner, first, second) = (
        around("outer"),
        around("inner"),
        around("first"),
        around("second"),
    );
    let setup = world.app("1").register::<wrapped>().state(probe.clone());
    let setup = setup.with(|app| app.middleware(outer).middleware(inner));
    let setup = setup.with(|app| app.publish_middleware(first).publish_middleware(second));
    let process = setup.start().await;
    world.publish_json("work", BODY).await;
    let retry = r#"Retry { after: None } Some("once")"#;
    for note in [
        "outer before #1",
        "inner before #1",
        "handles after inner",
        &format!("inner after {retry}"),
        &format!("outer after {retry}"),
        "outer before #2",
        "inner before #2",
        "handles after inner",
        "inner after Done None",
        "outer after Done None",
        "first publishes to made",
        "second publishes to made",
        "second published: true",
        "first published: true",
    ] {
        probe.expect(note).await;
    }
    assert_eq!(made.next().await.header("x-published"), "second");
    let test = [("x-test", "1")].into_iter().collect();
    world.publish("work", BODY, test).await;
    probe.expect("outer before #1").await;
    probe.quiet().await;
    process.stop().await;
    world.dead("wrapped", "work", 0).await;
    world.until_left("wrapped", "work", 0).await;
    Ok(())
}
