//! Bodies of every kind, from foreign clients and to them.

use std::sync::Arc;

use bytes::Bytes;
use interline::handling::PublishErrorKind;
use interline::prelude::*;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_body_of_ten_megabytes_passes_in_and_out,
    a_foreign_payload_needs_no_contract,
    a_tombstone_is_none,
    an_unknown_type_is_kept_or_skipped_as_the_subscriber_says,
    the_codec_is_the_one_that_the_content_type_names,
    what_cannot_be_read_is_kept_and_never_handled,
];

#[subscriber(group = "read")]
async fn read(work: Work, meta: Meta, probe: State<Probe>) {
    probe.note(format!("{} #{}", work.act, meta.attempt()));
}

const READABLE: &str = r#"{"id":"i","key":"k","act":"readable"}"#;

fn headers(given: &[(&'static str, &'static str)]) -> Headers {
    given.iter().copied().collect()
}

async fn what_cannot_be_read_is_kept_and_never_handled(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<read>().state(probe.clone());
    let process = setup.start().await;
    let broken: [&[u8]; 5] = [b"{", b"[1,2]", b"", b"\xff\xfe\x00", br#"{"id":"i"}"#];
    for body in broken {
        let json = headers(&[("content-type", "application/json")]);
        world.publish("work", body, json).await;
        let letter = world.dead("read", "work", 1).await.remove(0);
        assert_eq!(letter.body, body);
        assert_eq!(letter.header("x-dlq-reason"), "decode");
        assert_eq!(letter.header("x-dlq-attempts"), "1");
        assert_eq!(letter.header("content-type"), "application/json");
        assert!(!letter.header("x-dlq-error").is_empty());
    }
    // A format that no codec reads.
    let xml = headers(&[("content-type", "application/xml")]);
    world.publish("work", READABLE, xml).await;
    let letter = world.dead("read", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "decode");
    let error = letter.header("x-dlq-error");
    assert!(
        error.contains("application/xml") && error.contains("json"),
        "{error}"
    );
    probe.quiet().await;
    process.stop().await;
    Ok(())
}

/// In MessagePack, by the specification: a map of three texts.
const PACKED: &[u8] = b"\x83\xa2id\xa1i\xa3key\xa1k\xa3act\xa6packed";

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "packed", codec = msgpack, subscribers = optional)]
struct Packed {
    id: String,
    key: String,
    act: String,
}

/// In Protocol Buffers, by the specification: field 1 is a text, field 2 a number.
const PROTO: &[u8] = b"\x0a\x05proto\x10\x96\x01";

#[derive(Message, prost::Message)]
#[message(topic = "proto", codec = protobuf, subscribers = optional)]
struct Proto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    number: u32,
}

#[subscriber(group = "read")]
async fn read_packed(packed: Packed, probe: State<Probe>) {
    probe.note(packed.act);
}

#[subscriber(group = "read")]
async fn read_proto(proto: Proto, probe: State<Probe>) {
    probe.note(format!("{} {}", proto.name, proto.number));
}

async fn the_codec_is_the_one_that_the_content_type_names(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<read>().register::<read_packed>();
    let setup = setup.register::<read_proto>().state(probe.clone());
    let process = setup.start().await;
    let given: &[(&str, &[u8], &str, &str)] = &[
        (
            "work",
            READABLE.as_bytes(),
            "application/json",
            "readable #1",
        ),
        (
            "work",
            READABLE.as_bytes(),
            "application/json; charset=utf-8",
            "readable #1",
        ),
        (
            "work",
            READABLE.as_bytes(),
            "application/vnd.acme+json",
            "readable #1",
        ),
        ("work", READABLE.as_bytes(), "TEXT/JSON", "readable #1"),
        (
            "work",
            READABLE.as_bytes(),
            "application/octet-stream",
            "readable #1",
        ),
        ("work", READABLE.as_bytes(), "", "readable #1"),
        ("work", PACKED, "application/msgpack", "packed #1"),
        ("work", PACKED, "application/x-msgpack", "packed #1"),
        ("packed", PACKED, "", "packed"),
        ("packed", PACKED, "application/vnd.msgpack", "packed"),
        (
            "packed",
            READABLE.as_bytes(),
            "application/json",
            "readable",
        ),
        ("proto", PROTO, "", "proto 150"),
        ("proto", PROTO, "application/x-protobuf", "proto 150"),
        ("proto", PROTO, "application/protobuf", "proto 150"),
        (
            "proto",
            PROTO,
            "application/vnd.google.protobuf",
            "proto 150",
        ),
    ];
    for (topic, body, content_type, note) in given {
        let headers = match *content_type {
            "" => Headers::new(),
            content_type => headers(&[("content-type", content_type)]),
        };
        world.publish(topic, *body, headers).await;
        assert_eq!(probe.next().await, *note, "{topic} as `{content_type}`");
    }

    // And what we write is what the specifications say.
    let mut packed = world.listen("packed").await?;
    let mut proto = world.listen("proto").await?;
    let value = |text: &str| text.to_owned();
    let (id, key, act) = (value("i"), value("k"), value("packed"));
    process.publish(&Packed { id, key, act }).await;
    let name = value("proto");
    process.publish(&Proto { name, number: 150 }).await;
    assert_eq!(probe.take_sorted(2).await, ["packed", "proto 150"]);
    let (packed, proto) = (packed.next().await, proto.next().await);
    assert_eq!(packed.body, PACKED);
    assert_eq!(packed.header("content-type"), "application/msgpack");
    assert_eq!(proto.body, PROTO);
    assert_eq!(proto.header("content-type"), "application/x-protobuf");
    process.stop().await;
    world.dead("read", "work", 0).await;
    Ok(())
}

#[subscriber(group = "skipping", on_unknown = skip)]
async fn skipping(work: Work, probe: State<Probe>) {
    probe.note(format!("skipping {}", work.act));
}

async fn an_unknown_type_is_kept_or_skipped_as_the_subscriber_says(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<read>().register::<skipping>();
    let process = setup.state(probe.clone()).start().await;
    let other = headers(&[
        ("message-type", "Other"),
        ("content-type", "application/json"),
    ]);
    world.publish("work", READABLE, other).await;
    let letter = world.dead("read", "work", 1).await.remove(0);
    assert_eq!(letter.text(), READABLE);
    assert_eq!(letter.header("x-dlq-reason"), "no_handler");
    assert!(letter.header("x-dlq-error").contains("Other"));
    probe.quiet().await;
    world.dead("skipping", "work", 0).await;
    // Neither is a reason to stop.
    world.publish_json("work", READABLE).await;
    assert_eq!(
        probe.take_sorted(2).await,
        ["readable #1", "skipping readable"]
    );
    process.stop().await;
    world.until_left("skipping", "work", 0).await;
    Ok(())
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "records", key = key, subscribers = optional)]
struct Record {
    key: String,
}

#[subscriber(group = "compacted")]
async fn compacted(record: Option<Record>, meta: Meta, probe: State<Probe>) {
    let key = meta.key().unwrap_or("-");
    let what = record.map_or("gone", |_| "here");
    probe.note(format!("{key} is {what}"));
}

async fn a_tombstone_is_none(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<compacted>().state(probe.clone());
    let process = setup.start().await;
    let key = "k1".to_owned();
    process.publish(&Record { key }).await;
    probe.expect("k1 is here").await;
    world
        .publish("records", "", headers(&[("message-key", "k2")]))
        .await;
    probe.expect("k2 is gone").await;
    world.publish("records", "", Headers::new()).await;
    probe.expect("- is gone").await;
    process.stop().await;
    world.dead("compacted", "records", 0).await;
    Ok(())
}

#[subscriber(topic = "foreign.words", group = "foreign", on_unknown = skip)]
async fn words(words: Vec<String>, probe: State<Probe>) {
    probe.note(words.join(" "));
}

#[subscriber(topic = "foreign.bytes", group = "foreign", on_unknown = dead_letter)]
async fn any_bytes(raw: Raw, probe: State<Probe>) {
    let kind = raw.headers().text("content-type").unwrap_or_default();
    probe.note(format!("{}: {kind}: {:?}", raw.topic(), raw.body()));
}

async fn a_foreign_payload_needs_no_contract(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<words>().register::<any_bytes>();
    let process = setup.state(probe.clone()).start().await;
    world
        .publish("foreign.words", r#"["two","words"]"#, Headers::new())
        .await;
    probe.expect("two words").await;
    world.publish("foreign.words", "{}", Headers::new()).await;
    let png = headers(&[("content-type", "image/png"), ("message-type", "Any")]);
    world
        .publish("foreign.bytes", b"\x89PNG".as_slice(), png)
        .await;
    probe
        .expect(r#"foreign.bytes: image/png: b"\x89PNG""#)
        .await;
    probe.quiet().await;
    process.stop().await;
    world.dead("foreign", "foreign.words", 0).await;
    world.until_left("foreign", "foreign.words", 0).await;
    Ok(())
}

#[subscriber(topic = "big", group = "big", on_unknown = dead_letter)]
async fn big(raw: Raw, publisher: Publisher, probe: State<Probe>) -> Result<(), PublishError> {
    let body = raw.body().clone();
    publisher
        .publish_raw("big.copied", body, Headers::new())
        .await?;
    probe.note(raw.body().len().to_string());
    Ok(())
}

async fn a_body_of_ten_megabytes_passes_in_and_out(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut copied = world.listen("big.copied").await?;
    let setup = world.app("1").register::<big>().state(probe.clone());
    let process = setup.start().await;
    let bytes = (0..10 << 20).map(|at: u32| at.to_le_bytes()[1]);
    let body = Bytes::from(bytes.collect::<Vec<_>>());
    world.publish("big", body.clone(), Headers::new()).await;
    probe.expect("10485760").await;
    assert!(copied.next().await.body == body, "the body differs");
    process.stop().await;

    // What is larger than it may be is refused before it is sent.
    let setup = world
        .app("2")
        .set("service.name", "small")
        .with(App::publish_only);
    let process = setup
        .set("brokers.main.message_bytes_max", "1MiB")
        .start()
        .await;
    let publisher = process.running.publisher();
    let refused = publisher.publish_raw("big", body, Headers::new()).await;
    assert_eq!(
        refused.expect_err("it is large").kind(),
        PublishErrorKind::TooLarge
    );
    process.stop().await;
    world.until_left("big", "big", 0).await;
    Ok(())
}
