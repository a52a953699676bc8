//! The options of `#[subscriber]`: their table, what goes together, and how they are written down.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::Lit;

use crate::args::{Args, Conflict, Key, Kind, Pair, Value};
use crate::diagnostics::Errors;
use crate::emit;

const SETTLED: &[Conflict] = &[Conflict {
    key: "ack",
    word: Some("on_receive"),
    why: "the message is acknowledged before the handler runs, so the broker has nothing left to keep",
}];

const AT_MOST_ONCE: &[Conflict] = &[Conflict {
    key: "delivery",
    word: Some("at_most_once"),
    why: "the message is acknowledged as it arrives, never repeated and never kept",
}];

const SETTLED_OR_ONCE: &[Conflict] = &[
    Conflict {
        key: "ack",
        word: Some("on_receive"),
        why: SETTLED[0].why,
    },
    Conflict {
        key: "delivery",
        word: Some("at_most_once"),
        why: AT_MOST_ONCE[0].why,
    },
];

const ONE_BY_ONE: &[Conflict] = &[Conflict {
    key: "ack",
    word: Some("manual"),
    why: "`Settle` settles one message; a batch gives its outcomes by returning a `BatchOutcome`",
}];

const NO_BINDING: &str = "with `exchange = \"\"` there is no exchange to bind to";

const BATCH: &[Key] = &[
    Key::new("max", Kind::Number(1, 65_535)),
    Key::new("wait", Kind::Duration),
];

const RETRY: &[Key] = &[
    Key::new("attempts", Kind::Number(1, u32::MAX as u64)),
    Key::new("first", Kind::Duration),
    Key::new("max", Kind::Duration),
    Key::new("factor", Kind::Decimal(1.0)),
];

const KAFKA: &[Key] = &[
    Key::new("group_id", Kind::Text),
    Key::new("pattern", Kind::Text),
    Key::new("partitions", Kind::Number(1, 10_000)),
    Key::new("replication", Kind::Number(1, 100)),
    Key::new("retry", Kind::Word(&["in_lane", "topics"])),
];

const BREAKER: &[Key] = &[
    Key::new("ratio", Kind::Decimal(0.001)),
    Key::new("minimum", Kind::Number(1, u32::MAX as u64)),
    Key::new("window", Kind::Duration),
    Key::new("wait", Kind::Duration),
    Key::new("max", Kind::Duration),
];

const RABBITMQ: &[Key] = &[
    Key::new("queue", Kind::Text),
    Key::new("queue_kind", Kind::Word(&["classic", "quorum"])),
    Key::new("exchange", Kind::Text),
    Key::new(
        "exchange_kind",
        Kind::Word(&["direct", "topic", "fanout", "headers"]),
    ),
    Key::new("binding", Kind::Text),
    Key::new("max_priority", Kind::Number(1, 255)),
    Key::new("prefetch", Kind::Number(1, 65_535)),
    Key::new("arguments", Kind::Pairs),
    Key::new("binding_arguments", Kind::Pairs),
];

const REDIS: &[Key] = &[
    Key::new("stream", Kind::Text),
    Key::new("group", Kind::Text),
];

pub(crate) const KEYS: &[Key] = &[
    Key::new("name", Kind::Name),
    Key::new("broker", Kind::Name),
    Key::new("group", Kind::NameOrWord(&["each_instance"])),
    Key::new("concurrency", Kind::Number(1, 4_096)),
    Key::new("ordered_by", Kind::Word(&["key", "key_in_process"])),
    Key::new("batch", Kind::Group(BATCH)).unless(ONE_BY_ONE),
    Key::new("timeout", Kind::Duration),
    Key::new("retry", Kind::GroupOrWord(RETRY, &["none"])).unless(AT_MOST_ONCE),
    Key::new("dead_letter", Kind::Bool).unless(SETTLED_OR_ONCE),
    Key::new("ack", Kind::Word(&["after", "on_receive", "manual"])).unless(AT_MOST_ONCE),
    Key::new("delivery", Kind::Word(&["at_least_once", "at_most_once"])),
    Key::new("on_unknown", Kind::Word(&["skip", "dead_letter"])),
    Key::new("start", Kind::Word(&["new", "earliest"])),
    Key::new("rate", Kind::Rate),
    Key::new("breaker", Kind::FlagOrGroup(BREAKER)),
    Key::new("topology", Kind::Word(&["apply", "verify", "off"])),
    Key::new("topic", Kind::Topic),
    Key::new("codec", Kind::NameOrWord(emit::CODECS)),
    Key::new("companion", Kind::Ident),
    Key::new("kafka", Kind::Group(KAFKA)),
    Key::new("rabbitmq", Kind::Group(RABBITMQ)),
    Key::new("redis", Kind::Group(REDIS)),
    Key::new("crate", Kind::Path),
];

/// What the table cannot say: options that need another, or values that do not fit together.
pub(super) fn check(args: &Args, errors: &mut Errors) {
    if let Some(batch) = args.group("batch") {
        let missing: Vec<_> = ["max", "wait"]
            .into_iter()
            .filter(|key| !batch.has(key))
            .collect();
        if !missing.is_empty() {
            errors.at_span(
                args.span("batch"),
                format!("`batch` lacks {}", crate::diagnostics::list(missing)),
                "write for example `batch(max = 200, wait = \"50ms\")`",
            );
        }
    }
    if let Some(retry) = args.group("retry")
        && let (Some(first), Some(max)) = (retry.duration("first"), retry.duration("max"))
        && first > max
    {
        errors.at_span(
            retry.span("first"),
            "the first wait is longer than the longest one",
            "`first` is at most `max`",
        );
    }
    if let Some(breaker) = args.group("breaker") {
        check_breaker(breaker, errors);
    }
    if args.has("topic") && !args.has("on_unknown") {
        errors.at_span(
            args.span("topic"),
            "with `topic` it must be said what becomes of messages that cannot be read",
            "add `on_unknown = dead_letter` to keep them, or `on_unknown = skip` to drop them",
        );
    }
    if let Some(kafka) = args.group("kafka") {
        for (key, instead) in [
            ("group_id", "leave it out to have it named after the group"),
            ("pattern", "leave it out to read the topic"),
        ] {
            if kafka.text(key).is_some_and(|text| text.is_empty()) {
                let what = format!("`{key}` cannot be empty");
                errors.at_span(kafka.span(key), what, instead);
            }
        }
    }
    if let Some(rabbitmq) = args.group("rabbitmq") {
        check_rabbitmq(rabbitmq, errors);
    }
    if let Some(redis) = args.group("redis") {
        for (key, what) in [("stream", "a stream's name"), ("group", "a group's name")] {
            if redis.text(key).is_some_and(|name| name.is_empty()) {
                errors.at_span(
                    redis.span(key),
                    format!("{what} cannot be empty"),
                    "leave it out to have it named after topic and group",
                );
            }
        }
    }
}

fn check_breaker(breaker: &Args, errors: &mut Errors) {
    if breaker.decimal("ratio").is_some_and(|ratio| ratio > 1.0) {
        errors.at_span(
            breaker.span("ratio"),
            "a share is at most 1",
            "write for example `ratio = 0.5` for half of the attempts",
        );
    }
    if let (Some(wait), Some(max)) = (breaker.duration("wait"), breaker.duration("max"))
        && wait > max
    {
        errors.at_span(
            breaker.span("wait"),
            "the first wait is longer than the longest one",
            "`wait` is at most `max`",
        );
    }
}

fn check_rabbitmq(rabbitmq: &Args, errors: &mut Errors) {
    if rabbitmq.has("max_priority") && rabbitmq.word("queue_kind") != Some("classic") {
        errors.at_span(
            rabbitmq.span("max_priority"),
            "only a classic queue has priorities",
            "add `queue_kind = classic`",
        );
    }
    if rabbitmq
        .text("exchange")
        .is_some_and(|exchange| exchange.is_empty())
    {
        for key in ["exchange_kind", "binding", "binding_arguments"] {
            if rabbitmq.has(key) {
                let what = format!("`{key}` has no effect here");
                errors.at_span(rabbitmq.span(key), what, NO_BINDING);
            }
        }
    }
    if rabbitmq.text("queue").is_some_and(|queue| queue.is_empty()) {
        errors.at_span(
            rabbitmq.span("queue"),
            "a queue's name cannot be empty",
            "leave it out to have it named after group and topic",
        );
    }
    for key in ["arguments", "binding_arguments"] {
        for pair in rabbitmq.pairs(key) {
            if argument(pair).is_none() {
                errors.at(
                    &pair.value,
                    format!("an argument of `{key}` is a name with a text, a whole number, `true` or `false`"),
                    format!("write for example `{key}(\"x-max-length\" = 1000)`"),
                );
            }
        }
    }
}

/// The options as the runtime's own.
pub(super) fn emit(args: &Args) -> TokenStream {
    let mut options = quote!(__private::SubscriberOptions::UNSET);
    for entry in args.entries() {
        let key = &entry.key;
        let name = key.to_string();
        let value = match (name.as_str(), &entry.value) {
            ("topic" | "companion" | "crate", _) => continue,
            ("group", Value::Word(_)) => quote!(__private::GroupOption::EachInstance),
            ("group", Value::Text(group)) => quote!(__private::GroupOption::Named(#group)),
            ("concurrency", Value::Number(number)) => {
                let number = *number as u32;
                quote!(#number)
            }
            ("codec", Value::Word(word)) => word.to_token_stream(),
            ("retry", Value::Word(_)) => quote!(__private::RetryOptions::NONE),
            ("retry", Value::Group(retry)) => emit_retry(retry),
            ("breaker", Value::Flag) => quote!(__private::BreakerOptions::UNSET),
            ("breaker", Value::Group(breaker)) => emit_breaker(breaker),
            ("batch", Value::Group(batch)) => {
                let max = batch.number("max").unwrap_or(1) as u32;
                let wait = emit::duration(batch.duration("wait").unwrap_or_default());
                quote!(__private::BatchOptions::new(#max, #wait))
            }
            ("kafka", Value::Group(kafka)) => emit_kafka(kafka),
            ("rabbitmq", Value::Group(rabbitmq)) => emit_rabbitmq(rabbitmq),
            ("redis", Value::Group(redis)) => emit_redis(redis),
            (_, Value::Word(word)) => variant(word),
            (_, Value::Text(text)) => text.to_token_stream(),
            (_, Value::Bool(value)) => value.to_token_stream(),
            (_, Value::Duration(duration)) => emit::duration(*duration),
            (_, Value::Rate(count, per)) => {
                let per = emit::duration(*per);
                quote!(__private::Rate::new(#count, #per))
            }
            _ => continue,
        };
        let setter = plain(&name);
        options.extend(quote!(.#setter(#value)));
    }
    options
}

/// A key as a method's name, without the place where the user wrote it.
fn plain(name: &str) -> proc_macro2::Ident {
    proc_macro2::Ident::new(name, proc_macro2::Span::call_site())
}

/// The runtime's name for a word of the options.
fn variant(word: &str) -> TokenStream {
    match word {
        "key" => quote!(__private::OrderedBy::Key),
        "key_in_process" => quote!(__private::OrderedBy::KeyInProcess),
        "after" => quote!(__private::Ack::After),
        "on_receive" => quote!(__private::Ack::OnReceive),
        "manual" => quote!(__private::Ack::Manual),
        "at_least_once" => quote!(__private::DeliveryMode::AtLeastOnce),
        "at_most_once" => quote!(__private::DeliveryMode::AtMostOnce),
        "skip" => quote!(__private::OnUnknown::Skip),
        "dead_letter" => quote!(__private::OnUnknown::DeadLetter),
        "new" => quote!(__private::Start::New),
        "earliest" => quote!(__private::Start::Earliest),
        "apply" => quote!(__private::TopologyMode::Apply),
        "verify" => quote!(__private::TopologyMode::Verify),
        "off" => quote!(__private::TopologyMode::Off),
        "in_lane" => quote!(__private::KafkaRetry::InLane),
        "topics" => quote!(__private::KafkaRetry::Topics),
        "classic" => quote!(__private::QueueKind::Classic),
        "quorum" => quote!(__private::QueueKind::Quorum),
        "direct" => quote!(__private::ExchangeKind::Direct),
        "topic" => quote!(__private::ExchangeKind::Topic),
        "fanout" => quote!(__private::ExchangeKind::Fanout),
        _ => quote!(__private::ExchangeKind::Headers),
    }
}

fn emit_retry(retry: &Args) -> TokenStream {
    let mut options = quote!(__private::RetryOptions::UNSET);
    if let Some(attempts) = retry.number("attempts") {
        let attempts = attempts as u32;
        options.extend(quote!(.attempts(#attempts)));
    }
    for key in ["first", "max"] {
        if let Some(duration) = retry.duration(key) {
            let (setter, duration) = (plain(key), emit::duration(duration));
            options.extend(quote!(.#setter(#duration)));
        }
    }
    if let Some(factor) = retry.decimal("factor") {
        options.extend(quote!(.factor(#factor)));
    }
    options
}

fn emit_kafka(kafka: &Args) -> TokenStream {
    let mut options = quote!(__private::KafkaOptions::UNSET);
    for entry in kafka.entries() {
        let name = entry.key.to_string();
        let value = match &entry.value {
            Value::Text(text) => text.to_token_stream(),
            Value::Word(word) => variant(word),
            Value::Number(number) => (*number as u16).to_token_stream(),
            _ => continue,
        };
        let setter = plain(&name);
        options.extend(quote!(.#setter(#value)));
    }
    options
}

fn emit_breaker(breaker: &Args) -> TokenStream {
    let mut options = quote!(__private::BreakerOptions::UNSET);
    if let Some(ratio) = breaker.decimal("ratio") {
        options.extend(quote!(.ratio(#ratio)));
    }
    if let Some(minimum) = breaker.number("minimum") {
        let minimum = minimum as u32;
        options.extend(quote!(.minimum(#minimum)));
    }
    for key in ["window", "wait", "max"] {
        if let Some(duration) = breaker.duration(key) {
            let (setter, duration) = (plain(key), emit::duration(duration));
            options.extend(quote!(.#setter(#duration)));
        }
    }
    options
}

fn emit_rabbitmq(rabbitmq: &Args) -> TokenStream {
    let mut options = quote!(__private::RabbitMqOptions::UNSET);
    for entry in rabbitmq.entries() {
        let name = entry.key.to_string();
        let value = match (name.as_str(), &entry.value) {
            (_, Value::Text(text)) => text.to_token_stream(),
            (_, Value::Word(word)) => variant(word),
            ("max_priority", Value::Number(number)) => (*number as u8).to_token_stream(),
            (_, Value::Number(number)) => (*number as u16).to_token_stream(),
            (_, Value::Pairs(pairs)) => {
                let pairs = pairs.iter().filter_map(argument);
                quote!(&[#(#pairs),*])
            }
            _ => continue,
        };
        let setter = plain(&name);
        options.extend(quote!(.#setter(#value)));
    }
    options
}

fn emit_redis(redis: &Args) -> TokenStream {
    let mut options = quote!(__private::RedisOptions::UNSET);
    for key in ["stream", "group"] {
        if let Some(text) = redis.text(key) {
            let setter = plain(key);
            options.extend(quote!(.#setter(#text)));
        }
    }
    options
}

/// A pair of `arguments(..)`.
fn argument(pair: &Pair) -> Option<TokenStream> {
    let Lit::Str(key) = &pair.key else {
        return None;
    };
    if key.value().is_empty() {
        return None;
    }
    if let Ok(literal) = syn::parse2::<syn::LitInt>(pair.value.clone()) {
        let number = literal.base10_parse::<i64>().ok()?;
        return Some(quote!((#key, __private::Argument::Int(#number))));
    }
    match syn::parse2::<Lit>(pair.value.clone()).ok()? {
        Lit::Str(text) => Some(quote!((#key, __private::Argument::Text(#text)))),
        Lit::Bool(value) => Some(quote!((#key, __private::Argument::Bool(#value)))),
        _ => None,
    }
}
