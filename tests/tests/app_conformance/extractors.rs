//! What a handler can take beside its payload.

use std::sync::Arc;

use interline::handling::{Bind, Extract, Rejection, Scope};
use interline::message::Incoming;
use interline::prelude::*;

use crate::probe::Probe;
use crate::world::{Outcome as Ending, World, cases};

cases![
    an_argument_that_is_missing_is_a_dead_letter_that_says_which,
    every_argument_is_what_the_message_says,
    segments_of_the_topic_are_arguments,
];

#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "taken", key = id)]
struct Taken {
    region: String,
    id: u32,
}

#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "regional.{region}", key = id)]
struct Regional {
    region: String,
    id: u32,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "seen", subscribers = optional)]
struct Noted {
    by: String,
}

/// An argument of the test's own.
struct Tenant(String);

impl Extract for Tenant {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), incoming: &Arc<Incoming>, _: &Scope) -> Result<Self, Rejection> {
        match incoming.headers.text("x-tenant").as_deref() {
            Some("blocked") => Err(Rejection::unauthorized("this tenant is blocked")),
            Some(tenant) => Ok(Self(tenant.to_owned())),
            None => Err(Rejection::dead_letter("no tenant")),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one of each")]
#[subscriber(group = "taking", timeout = "20s")]
async fn taking(
    taken: &Taken,
    probe: State<Probe>,
    tenant: Tenant,
    #[header("x-amount")] amount: u64,
    #[header("x-flag")] flag: Option<bool>,
    #[header("x-absent")] absent: Option<String>,
    meta: Meta,
    headers: Headers,
    publisher: Publisher,
    out: Out<Noted>,
    cancel: Cancel,
) -> Result<(), PublishError> {
    let by = |by: &str| Noted { by: by.to_owned() };
    publisher.publish(&by("publisher")).await?;
    out.send(by("out"))?;
    let topic = meta.topic();
    probe.note(format!(
        "{taken:?} {} {amount} {flag:?} {absent:?}",
        tenant.0
    ));
    probe.note(format!("{topic} {:?} #{}", meta.key(), meta.attempt()));
    let sent = meta.published_at().is_some();
    probe.note(format!(
        "{} {:?} {sent} {}",
        meta.id(),
        meta.sender(),
        meta.origin().broker
    ));
    let header = headers.text("x-amount").unwrap_or_default().into_owned();
    probe.note(format!(
        "{header} {} {}",
        meta.trace_id(),
        cancel.is_cancelled()
    ));
    Ok(())
}

const BODY: &str = r#"{"region":"eu","id":7}"#;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn every_argument_is_what_the_message_says(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut seen = world.listen("seen").await?;
    let setup = world.app("1").register::<taking>().state(probe.clone());
    let process = setup.start().await;
    let taken = r#"Taken { region: "eu", id: 7 } acme 12 Some(true) None"#;
    let (region, id) = ("eu".to_owned(), 7);
    let message = Publish::new(Taken { region, id })
        .header("x-tenant", "acme")
        .header("x-amount", "12")
        .header("x-flag", "true")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    process.publish(message).await;
    probe.expect(taken).await;
    probe.expect(r#"taken Some("7") #1"#).await;
    let note = probe.next().await;
    assert!(note.ends_with(r#" Some("conform") true main"#), "{note}");
    probe.expect(&format!("12 {TRACE} false")).await;
    let mut by: Vec<_> = seen.take(2).await.iter().map(|seen| seen.text()).collect();
    by.sort();
    assert_eq!(by, [r#"{"by":"out"}"#, r#"{"by":"publisher"}"#]);

    // And of somebody who knows nothing of us.
    let given = [
        ("message-id", "foreign-1"),
        ("x-tenant", "acme"),
        ("x-amount", "12"),
        ("x-flag", "true"),
    ];
    world
        .publish("taken", BODY, given.into_iter().collect())
        .await;
    probe.expect(taken).await;
    probe.expect("taken None #1").await;
    probe.expect("foreign-1 None false main").await;
    let note = probe.next().await;
    assert!(note.starts_with("12 ") && !note.contains(TRACE), "{note}");
    process.stop().await;
    Ok(())
}

async fn an_argument_that_is_missing_is_a_dead_letter_that_says_which(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<taking>().state(probe.clone());
    let process = setup.start().await;
    let (tenant, amount) = (("x-tenant", "acme"), ("x-amount", "12"));
    for (headers, reason, error) in [
        (vec![tenant], "decode", "the header `x-amount` is missing"),
        (
            vec![tenant, ("x-amount", "many")],
            "decode",
            "the header `x-amount` is not a `u64`",
        ),
        (
            vec![tenant, amount, ("x-flag", "perhaps")],
            "decode",
            "the header `x-flag` is not a `bool`",
        ),
        (vec![amount], "decode", "no tenant"),
        (
            vec![amount, ("x-tenant", "blocked")],
            "unauthorized",
            "this tenant is blocked",
        ),
    ] {
        world
            .publish("taken", BODY, headers.into_iter().collect())
            .await;
        let letter = world.dead("taking", "taken", 1).await.remove(0);
        assert_eq!(letter.header("x-dlq-reason"), reason);
        let found = letter.header("x-dlq-error");
        assert!(found.starts_with(error), "{found}");
        assert_eq!(letter.header("x-dlq-attempts"), "1");
    }
    probe.quiet().await;
    process.stop().await;
    Ok(())
}

#[subscriber(group = "regional")]
async fn regional(
    taken: Regional,
    #[segment] region: String,
    #[segment("region")] again: Option<String>,
    probe: State<Probe>,
) {
    probe.note(format!("{} {region} {again:?}", taken.id));
}

async fn segments_of_the_topic_are_arguments(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<regional>().state(probe.clone());
    let process = setup.start().await;
    let region = "eu".to_owned();
    process.publish(&Regional { region, id: 7 }).await;
    probe.expect(r#"7 eu Some("eu")"#).await;
    process.stop().await;
    Ok(())
}
