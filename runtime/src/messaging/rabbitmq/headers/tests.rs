use super::*;
use lapin::types::DecimalValue;

fn every_field() -> FieldTable {
    let mut inner = FieldTable::default();
    inner.insert("in".into(), AMQPValue::ShortInt(-3));
    let mut table = FieldTable::default();
    let fields = [
        ("bool", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-1)),
        ("u8", AMQPValue::ShortShortUInt(255)),
        ("u16", AMQPValue::ShortUInt(65_535)),
        ("i32", AMQPValue::LongInt(-5)),
        ("u32", AMQPValue::LongUInt(u32::MAX)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("f32", AMQPValue::Float(0.5)),
        ("f64", AMQPValue::Double(2.5)),
        (
            "decimal",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 3,
                value: 45,
            }),
        ),
        ("text", AMQPValue::LongString("é".into())),
        ("raw", AMQPValue::LongString(vec![0xff, 0xfe].into())),
        (
            "list",
            AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Boolean(false)].into()),
        ),
        ("time", AMQPValue::Timestamp(7)),
        ("table", AMQPValue::FieldTable(inner)),
        ("bytes", AMQPValue::ByteArray(vec![1, 2].into())),
        ("void", AMQPValue::Void),
    ];
    for (name, value) in fields {
        table.insert(name.into(), value);
    }
    table
}

#[test]
fn every_field_type_of_amqp_becomes_a_header() {
    let headers = read(&BasicProperties::default().with_headers(every_field()));
    let expected = [
        ("bool", HeaderValue::Bool(true)),
        ("i8", HeaderValue::Int(-1)),
        ("u8", HeaderValue::Int(255)),
        ("u16", HeaderValue::Int(65_535)),
        ("i32", HeaderValue::Int(-5)),
        ("u32", HeaderValue::Int(4_294_967_295)),
        ("i64", HeaderValue::Int(i64::MIN)),
        ("f32", HeaderValue::Float(0.5)),
        ("f64", HeaderValue::Float(2.5)),
        ("decimal", HeaderValue::from("0.045")),
        ("text", HeaderValue::from("é")),
        ("raw", HeaderValue::Bytes(Bytes::from_static(&[0xff, 0xfe]))),
        (
            "list",
            HeaderValue::List(vec![HeaderValue::Null, HeaderValue::Bool(false)]),
        ),
        ("time", HeaderValue::Timestamp(7)),
        (
            "table",
            HeaderValue::Table(vec![("in".into(), HeaderValue::Int(-3))]),
        ),
        ("bytes", HeaderValue::Bytes(Bytes::from_static(&[1, 2]))),
        ("void", HeaderValue::Null),
    ];
    assert_eq!(headers.len(), expected.len());
    for (name, value) in expected {
        assert_eq!(headers.get(name), Some(&value), "{name}");
    }
}

#[test]
fn what_we_write_reads_the_same_again() {
    let headers: Headers = [
        ("flag", HeaderValue::Bool(false)),
        ("bytes", HeaderValue::Bytes(Bytes::from_static(b"\x00\xff"))),
        ("float", HeaderValue::Float(1.25)),
        ("int", HeaderValue::Int(-9)),
        ("list", HeaderValue::List(vec![HeaderValue::Int(1)])),
        ("null", HeaderValue::Null),
        ("text", HeaderValue::from("ü")),
        ("time", HeaderValue::Timestamp(3)),
    ]
    .into_iter()
    .collect();
    let again = read(&write(&headers, BasicProperties::default()));
    for (name, value) in headers.iter() {
        assert_eq!(again.get(name), Some(value), "{name}");
    }
    assert_eq!(
        to_amqp(&HeaderValue::UInt(u64::MAX)),
        AMQPValue::LongString("18446744073709551615".into())
    );
    assert_eq!(to_amqp(&HeaderValue::UInt(5)), AMQPValue::LongLongInt(5));
}

#[test]
fn headers_get_to_their_properties_however_their_names_are_written() {
    let written = |upper: bool| {
        let named = |name: &str| {
            if upper {
                name.to_ascii_uppercase()
            } else {
                name.to_owned()
            }
        };
        let headers: Headers = [
            (name::SENDER, "shop"),
            (name::MESSAGE_ID, "m-1"),
            (name::CONTENT_TYPE, "text/plain"),
            (name::MESSAGE_TYPE, "Placed"),
            (name::PUBLISHED_AT, "2023-11-14T22:13:20.999Z"),
            (name::CORRELATION_ID, "c-1"),
            ("x-other", "o"),
        ]
        .into_iter()
        .map(|(name, value)| (named(name), value))
        .collect();
        write(&headers, BasicProperties::default())
    };
    for properties in [written(false), written(true)] {
        let text = |value: &Option<ShortString>| value.as_ref().map(ShortString::to_string);
        let texts = [
            properties.app_id(),
            properties.message_id(),
            properties.content_type(),
            properties.kind(),
            properties.correlation_id(),
        ]
        .map(text);
        let expected = ["shop", "m-1", "text/plain", "Placed", "c-1"];
        assert_eq!(texts, expected.map(|text| Some(text.to_owned())));
        assert_eq!(*properties.timestamp(), Some(1_700_000_000));
        assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
        assert_eq!(properties.headers().as_ref().unwrap().inner().len(), 7);
    }
}

#[test]
fn properties_of_foreign_publishers_become_headers_where_the_table_lacks_them() {
    let mut table = FieldTable::default();
    table.insert(
        "message-id".into(),
        AMQPValue::LongString("from-table".into()),
    );
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id("from-property".into())
        .with_type("Placed".into())
        .with_correlation_id("c-1".into())
        .with_timestamp(1_700_000_000)
        .with_headers(table);
    let headers = read(&properties);
    assert_eq!(
        headers.text(name::CONTENT_TYPE).as_deref(),
        Some("application/json")
    );
    assert_eq!(
        headers.text(name::MESSAGE_ID).as_deref(),
        Some("from-table")
    );
    assert_eq!(headers.text(name::MESSAGE_TYPE).as_deref(), Some("Placed"));
    assert_eq!(headers.text(name::CORRELATION_ID).as_deref(), Some("c-1"));
    assert_eq!(
        headers.text(name::PUBLISHED_AT).as_deref(),
        Some("2023-11-14T22:13:20.000Z")
    );
    let odd = BasicProperties::default().with_timestamp(u64::MAX);
    assert!(!read(&odd).contains(name::PUBLISHED_AT));
}

#[test]
fn a_copy_keeps_the_original_and_drops_what_would_make_it_go_astray() {
    let original = BasicProperties::default()
        .with_content_type("text/x-odd".into())
        .with_content_encoding("gzip".into())
        .with_priority(3)
        .with_reply_to("answers".into())
        .with_expiration("1000".into())
        .with_user_id("somebody".into());
    let headers: Headers = [
        ("x-death", HeaderValue::List(vec![])),
        ("x-first-death-queue", HeaderValue::from("q")),
        ("CC", HeaderValue::List(vec![HeaderValue::from("other")])),
        ("mine", HeaderValue::from("1")),
    ]
    .into_iter()
    .collect();
    let copied = copy(&original, &headers, false);
    assert_eq!(
        copied.content_type().as_ref().unwrap().as_str(),
        "text/x-odd"
    );
    assert_eq!(copied.content_encoding().as_ref().unwrap().as_str(), "gzip");
    assert_eq!(copied.reply_to().as_ref().unwrap().as_str(), "answers");
    assert_eq!(
        (*copied.priority(), *copied.delivery_mode()),
        (Some(3), Some(2))
    );
    assert_eq!((copied.expiration(), copied.user_id()), (&None, &None));
    let names: Vec<_> = copied.headers().as_ref().unwrap().inner().keys().collect();
    assert_eq!(names, [&ShortString::from("mine")]);
    let kept = copy(&original, &headers, true);
    assert!(kept.headers().as_ref().unwrap().contains_key("x-death"));
    assert!(!kept.headers().as_ref().unwrap().contains_key("CC"));
}
