//! Each kind of thing that a handler can return, as its outputs are seen from outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use interline::MessageId;
use interline::prelude::*;

use crate::bench::Seen;
use crate::work::{Made, Work};
use crate::world::{Outcome as Ending, World, cases};

cases![each_kind_of_return_publishes_what_it_holds];

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[subscriber(group = "unit")]
async fn unit(work: Work) {
    drop(work);
}

#[subscriber(group = "message")]
async fn message(work: Work) -> Made {
    Made::new(&work.id, "message")
}

#[subscriber(group = "option")]
async fn option(work: Work) -> Option<Made> {
    (work.act == "some").then(|| Made::new(&work.id, "option"))
}

#[subscriber(group = "vec")]
async fn vec(work: Work) -> Vec<Made> {
    let all = ["vec-0", "vec-1", "vec-2"];
    all.iter().map(|what| Made::new(&work.id, what)).collect()
}

#[subscriber(group = "tuple")]
async fn tuple(work: Work) -> (Made, Option<Made>, Vec<Made>) {
    let made = |what| Made::new(&work.id, what);
    (made("tuple-0"), None, vec![made("tuple-1")])
}

#[subscriber(group = "publish")]
async fn publish(work: Work) -> Publish<Made> {
    Publish::new(Made::new(&work.id, "publish"))
        .header("x-more", "said")
        .key("other")
}

#[subscriber(group = "outcome")]
async fn outcome(_work: Work) -> Outcome {
    Outcome::done()
}

#[subscriber(group = "result")]
async fn result(work: Work) -> Result<(Made, Made), AnyError> {
    let made = |what| Made::new(&work.id, what);
    Ok((made("result-0"), made("result-1")))
}

#[subscriber(group = "out")]
async fn out(work: Work, out: Out<Made>) -> Result<Option<Made>, PublishError> {
    out.send(Made::new(&work.id, "out-0"))?;
    out.send_with(Publish::new(Made::new(&work.id, "out-1")).header("x-more", "sent"))?;
    Ok(Some(Made::new(&work.id, "out-2")))
}

#[subscriber(group = "batch", batch(max = 4, wait = "50ms"))]
async fn batch(many: Batch<Work>) -> BatchOutcome {
    many.all_done()
}

#[subscriber(group = "batch-message", batch(max = 4, wait = "50ms"))]
async fn batch_message(many: Batch<Work>) -> Result<Made, AnyError> {
    Ok(Made::new("batch", &many.len().to_string()))
}

async fn each_kind_of_return_publishes_what_it_holds(world: Arc<World>) -> Ending {
    let mut made = world.listen("made").await?;
    let setup = world.app("1").register::<unit>().register::<message>();
    let setup = setup.register::<option>().register::<vec>();
    let setup = setup.register::<tuple>().register::<publish>();
    let setup = setup.register::<outcome>().register::<result>();
    let setup = setup.register::<out>().register::<batch>();
    let process = setup.register::<batch_message>().start().await;
    process.publish(&Work::new("w", "some")).await;

    let expected = [
        ("message", 1),
        ("option", 1),
        ("vec", 3),
        ("tuple", 2),
        ("publish", 1),
        ("result", 2),
        ("out", 3),
        ("batch_message", 1),
    ];
    let count = expected.iter().map(|(_, count)| count).sum();
    let seen = made.take(count).await;
    made.quiet().await;
    let input = MessageId::parse("w").expect("a valid id");
    let mut ids = BTreeSet::new();
    for (handler, count) in expected {
        for index in 0..count {
            let id = input.derive(&format!("conform.{handler}"), index);
            let of_id = |seen: &&Seen| seen.header("message-id") == id.as_str();
            let found: Vec<_> = seen.iter().filter(of_id).collect();
            let [output] = found[..] else {
                panic!("{} outputs {index} of `{handler}`: {seen:#?}", found.len());
            };
            let (of, what, key) = match handler {
                "batch_message" => ("batch", "1".to_owned(), "batch"),
                "message" | "option" => ("w", handler.to_owned(), "w"),
                "publish" => ("w", handler.to_owned(), "other"),
                _ => ("w", format!("{handler}-{index}"), "w"),
            };
            let body: Made = serde_json::from_slice(&output.body)?;
            assert_eq!(body, Made::new(of, &what));
            for (name, value) in [
                ("content-type", "application/json"),
                ("message-type", "Made"),
                ("message-version", "1"),
                ("message-key", key),
                ("sender", "conform"),
                ("correlation-id", "w"),
                ("causation-id", "w"),
            ] {
                assert_eq!(output.header(name), value, "{name} of `{handler}`");
            }
            let more = match (handler, index) {
                ("publish", _) => "said",
                ("out", 1) => "sent",
                _ => "",
            };
            assert_eq!(output.header("x-more"), more, "{handler} {index}");
            ids.insert(id);
        }
    }
    assert_eq!(ids.len(), seen.len(), "ids are distinct");

    // `None` publishes nothing; the others do as before.
    process.publish(&Work::new("n", "none")).await;
    let seen = made.take(count - 1).await;
    let all: Vec<String> = seen.iter().map(Seen::text).collect();
    assert!(!all.iter().any(|body| body.contains("option")), "{all:?}");
    made.quiet().await;
    process.stop().await;
    for group in ["unit", "option", "outcome", "batch", "batch-message"] {
        world.until_left(group, "work", 0).await;
    }
    Ok(())
}
