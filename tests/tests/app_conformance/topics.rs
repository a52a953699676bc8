//! Where messages come from and go to: topics known at run time, templates, routes, what exists.

use std::sync::Arc;
use std::time::Duration;

use interline::handling::PublishErrorKind;
use interline::prelude::*;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_publish_that_nobody_listens_to_is_told,
    a_template_gets_all_its_topics_with_their_segments,
    a_topic_can_be_known_only_at_run_time,
    routes_say_which_broker_a_topic_belongs_to,
    what_exists_is_used_as_it_is,
    what_is_missing_under_verify_is_told,
];

#[subscriber(topic = "dynamic", group = "dynamic", on_unknown = dead_letter)]
async fn dynamic(raw: Raw, meta: Meta, probe: State<Probe>) {
    let body = String::from_utf8_lossy(raw.body()).into_owned();
    probe.note(format!("{}: {body}", meta.topic()));
}

async fn a_topic_can_be_known_only_at_run_time(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").state(probe.clone());
    let setup = setup.subscribe("tenants.acme.jobs", dynamic {});
    let setup = if world.has_templates() {
        setup.subscribe("mail.{tenant}.sent", dynamic {})
    } else {
        setup
            .subscribe("mail.acme.sent", dynamic {})
            .subscribe("mail.other.sent", dynamic {})
    };
    let process = setup.start().await;
    let publisher = process.running.publisher();
    for topic in ["tenants.acme.jobs", "mail.acme.sent", "mail.other.sent"] {
        publisher
            .publish_raw(topic, "bytes", Headers::new())
            .await?;
        probe.expect(&format!("{topic}: bytes")).await;
        world.publish(topic, "foreign", Headers::new()).await;
        probe.expect(&format!("{topic}: foreign")).await;
    }
    let wrong = publisher.publish_raw("no topic", "", Headers::new()).await;
    assert_eq!(
        wrong.expect_err("it has a space").kind(),
        PublishErrorKind::Topic
    );
    process.stop().await;
    world.until_left("dynamic", "tenants.acme.jobs", 0).await;
    Ok(())
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "orders.{region}.{shop}.placed")]
struct Placed {
    region: String,
    shop: u32,
}

#[subscriber(group = "template")]
async fn placed(
    placed: &Placed,
    #[segment] region: String,
    #[segment("shop")] number: u32,
    meta: Meta,
    probe: State<Probe>,
) {
    assert_eq!((&placed.region, placed.shop), (&region, number));
    probe.note(format!("{} {region} {number}", meta.topic()));
}

async fn a_template_gets_all_its_topics_with_their_segments(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<placed>().state(probe.clone());
    let process = setup.start().await;
    for (region, shop) in [("eu", 1), ("us", 2)] {
        let region = region.to_owned();
        let note = format!("orders.{region}.{shop}.placed {region} {shop}");
        process.publish(&Placed { region, shop }).await;
        probe.expect(&note).await;
    }
    // A segment that is not what the handler takes can never be handled.
    let body = r#"{"region":"eu","shop":1}"#;
    world.publish_json("orders.eu.one.placed", body).await;
    let template = "orders.{region}.{shop}.placed";
    let letter = world.dead("template", template, 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "decode");
    assert_eq!(letter.header("x-dlq-topic"), "orders.eu.one.placed");
    assert!(letter.header("x-dlq-error").contains("`{shop}`"));
    // A value that cannot be a segment is refused before it is sent.
    let wrong = Placed {
        region: "e.u".to_owned(),
        shop: 1,
    };
    let wrong = process.running.publisher().publish(&wrong).await;
    assert_eq!(
        wrong.expect_err("it has a dot").kind(),
        PublishErrorKind::Topic
    );
    probe.quiet().await;
    process.stop().await;
    Ok(())
}

async fn a_publish_that_nobody_listens_to_is_told(world: Arc<World>) -> Ending {
    let setup = world.app("1").set("service.name", "lonely");
    let process = setup.with(App::publish_only).start().await;
    let publisher = process.running.publisher();
    let alone = publisher.publish(&Work::new("w", "")).await;
    let alone = alone.expect_err("nobody listens");
    assert_eq!(alone.kind(), PublishErrorKind::Unroutable);
    let text = alone.to_string();
    assert!(text.contains("`work` was not published"), "{text}");
    // Some do not mind.
    publisher.publish(&crate::work::Made::new("w", "")).await?;
    process.stop().await;
    Ok(())
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "audit.noted")]
struct Noted {
    text: String,
}

#[subscriber(group = "audit")]
async fn audit(noted: Noted, meta: Meta, probe: State<Probe>) {
    probe.note(format!("{} from {}", noted.text, meta.origin().broker));
}

#[subscriber(group = "audit")]
async fn work(work: Work, meta: Meta, probe: State<Probe>) -> Noted {
    probe.note(format!("{} from {}", work.id, meta.origin().broker));
    Noted { text: work.id }
}

async fn routes_say_which_broker_a_topic_belongs_to(world: Arc<World>) -> Ending {
    let (probe, second) = (Probe::new(), world.another().await?);
    let setup = world.app("1").broker("audit", &second);
    let setup = setup.set("routes.\"audit.*\"", "audit").register::<audit>();
    let process = setup.register::<work>().state(probe.clone()).start().await;
    let mut there = second.listen("audit.noted").await?;
    let mut here = world.listen("audit.noted").await?;
    process.publish(&Work::new("w", "")).await;
    probe.expect("w from main").await;
    probe.expect("w from audit").await;
    assert_eq!(there.next().await.header("causation-id"), "w");
    // A publish that names its broker does not care for routes.
    let text = "named".to_owned();
    process
        .publish(Publish::new(Noted { text }).broker("main"))
        .await;
    assert_eq!(here.next().await.text(), r#"{"text":"named"}"#);
    probe.quiet().await;
    there.quiet().await;
    here.quiet().await;
    process.stop().await;
    second.close().await
}

#[subscriber(group = "existing")]
async fn existing(work: Work, probe: State<Probe>) {
    probe.note(&work.id);
}

async fn what_exists_is_used_as_it_is(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let app = |instance| {
        world
            .app(instance)
            .register::<existing>()
            .state(probe.clone())
    };
    app("1").start().await.stop().await;
    for (instance, mode) in [("2", "verify"), ("3", "off"), ("4", "apply")] {
        let setup = app(instance).set("brokers.main.topology", mode);
        let process = setup.start().await;
        process.publish(&Work::new(mode, "")).await;
        probe.expect(mode).await;
        process.stop().await;
    }
    world.until_left("existing", "work", 0).await;
    Ok(())
}

async fn what_is_missing_under_verify_is_told(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<existing>().state(probe.clone());
    let setup = setup.set("subscribers.existing.topology", "verify");
    let process = setup.launch().await;
    let missing = process.running.ready(Duration::from_secs(2)).await;
    let missing = missing.expect_err("there is nothing").to_string();
    assert!(missing.contains("existing.work"), "{missing}");
    assert!(!process.running.health().ready);
    process.stop().await;
    Ok(())
}
