//! The attributes of a method: which request it makes, and how.

use quote::ToTokens;
use syn::{Attribute, LitStr, TraitItemFn};

use crate::args::{Args, Key, Kind};
use crate::diagnostics::Errors;
use crate::literals;

use super::super::limits::Given;
use super::super::template::{self, Piece};
use super::result::Shape;
use super::signature::Argument;

/// The attributes that say which request a method makes.
pub(in super::super) const VERBS: &[&str] = &["get", "post", "put", "patch", "delete", "head"];
/// The other attributes of a method.
pub(in super::super) const EXTRAS: &[&str] = &[
    "idempotent",
    "timeout",
    "attempt_timeout",
    "retry",
    "fallback",
    "reconnect",
    "cache",
];
/// The attributes of arguments.
pub(in super::super) const PLACES: &[&str] = &["query", "header", "body"];

/// How waits are drawn: the names that the configuration has for it.
const JITTERS: &[&str] = &["full", "equal", "decorrelated", "none"];

pub(in super::super) const RETRY: &[Key] = &[
    Key::new("attempts", Kind::Number(1, 20)),
    Key::new("first", Kind::Duration),
    Key::new("max", Kind::Duration),
    Key::new("jitter", Kind::Word(JITTERS)),
    Key::new("hedge", Kind::Duration),
    Key::new("hedge_percentile", Kind::Number(50, 99)),
];

const CACHE: &[Key] = &[
    Key::new("ttl", Kind::Duration),
    Key::new("stale_if_error", Kind::Duration),
    Key::new("stale_while_revalidate", Kind::Duration),
];

pub(super) fn extra<'i>(item: &'i TraitItemFn, name: &str) -> Option<&'i Attribute> {
    item.attrs.iter().find(|found| found.path().is_ident(name))
}

pub(super) fn cache(
    item: &TraitItemFn,
    verb: Option<&str>,
    shape: Option<&Shape>,
    errors: &mut Errors,
) -> Option<Args> {
    let attribute = extra(item, "cache")?;
    if let Some(verb) = verb.filter(|verb| !matches!(*verb, "get" | "head")) {
        errors.at(
            attribute,
            format!(
                "the answer to a {} is not kept: it changes something",
                verb.to_uppercase()
            ),
            "leave it out",
        );
    }
    if shape.is_some_and(Shape::is_streamed) {
        errors.at(
            attribute,
            "an answer that is read while it comes is not kept",
            "return the whole of it, for example as `Bytes`, or leave out `#[cache]`",
        );
    }
    match &attribute.meta {
        syn::Meta::Path(_) => Some(Args::default()),
        syn::Meta::List(list) if !list.tokens.is_empty() => {
            Some(Args::parse(list.tokens.clone(), CACHE, "#[cache]", errors))
        }
        _ => {
            errors.at(
                attribute,
                "how long are answers kept?",
                "write for example `#[cache(ttl = \"30s\")]`, or `#[cache]` for as long as the service says",
            );
            None
        }
    }
}

/// Whether the calls carry a key by which the service knows them again.
pub(super) fn keyed(item: &TraitItemFn, verb: Option<&str>, errors: &mut Errors) -> bool {
    let Some(attribute) = extra(item, "idempotent") else {
        return false;
    };
    if attribute.meta.require_path_only().is_err() {
        errors.at(
            attribute,
            "`#[idempotent]` has no options",
            "write `#[idempotent]`",
        );
    }
    if let Some(verb @ ("get" | "head")) = verb {
        errors.at(
            attribute,
            format!(
                "a {} changes nothing, so it may be repeated as it is",
                verb.to_uppercase()
            ),
            "leave it out",
        );
    }
    true
}

/// Where a call is sent again that may not be, or cannot.
pub(super) fn repeats(
    item: &TraitItemFn,
    (keyed, verb, arguments): (bool, Option<&str>, &[Argument]),
    retry: &Args,
    errors: &mut Errors,
) {
    if let (Some(attribute), Some(verb @ ("post" | "patch")), false) =
        (extra(item, "retry"), verb, keyed)
    {
        errors.at(
            attribute,
            format!("a {} may not be repeated: it would be done twice", verb.to_uppercase()),
            "add `#[idempotent]`, which sends an `Idempotency-Key` that the service must honour, or \
             leave out `#[retry]`",
        );
    }
    let hedge = ["hedge", "hedge_percentile"];
    if let (Some(entry), true) = (
        hedge.into_iter().find_map(|key| retry.get(key)),
        arguments.iter().any(Argument::is_stream),
    ) {
        errors.at(
            &entry.key,
            "a stream is read once, so it is not sent in two requests",
            "send it as `#[body(bytes)]`, or leave this out",
        );
    }
}

pub(super) fn reconnects(
    item: &TraitItemFn,
    shape: Option<&Shape>,
    (keyed, verb, arguments): (bool, Option<&str>, &[Argument]),
    errors: &mut Errors,
) -> bool {
    let Some(attribute) = extra(item, "reconnect") else {
        return false;
    };
    if attribute.meta.require_path_only().is_err() {
        let what = "`#[reconnect]` has no options: the server says how long to wait";
        errors.at(attribute, what, "write `#[reconnect]`");
    }
    if shape.is_some_and(|shape| !shape.is_events()) {
        errors.at(
            attribute,
            "only a stream of events is asked for again when it breaks",
            "return `Result<EventStream, ..>`, or leave out `#[reconnect]`",
        );
        return true;
    }
    if let (Some(verb @ ("post" | "patch")), false) = (verb, keyed) {
        errors.at(
            attribute,
            format!("asking again would send the {} again: it would be done twice", verb.to_uppercase()),
            "add `#[idempotent]`, which sends an `Idempotency-Key` that the service must honour, or \
             leave out `#[reconnect]`",
        );
    }
    if arguments.iter().any(Argument::is_stream) {
        errors.at(
            attribute,
            "asking again would send the body again, and a stream is read once",
            "send it as `#[body(bytes)]`, or leave out `#[reconnect]`",
        );
    }
    true
}

/// Of two attributes of one name only the first would count.
pub(super) fn once(item: &TraitItemFn, errors: &mut Errors) {
    for name in EXTRAS {
        let mut found = item
            .attrs
            .iter()
            .filter(|found| found.path().is_ident(name));
        if let Some(second) = found.nth(1) {
            errors.at(
                second,
                format!("`#[{name}]` stands twice on this method"),
                "keep one of the two",
            );
        }
    }
}

type Path = (String, Vec<Piece>);

pub(super) fn verb(
    item: &TraitItemFn,
    errors: &mut Errors,
) -> (Option<&'static str>, Option<Path>) {
    let mut found = item.attrs.iter().filter_map(|attribute| {
        let verb = VERBS.iter().find(|verb| attribute.path().is_ident(verb));
        verb.map(|verb| (*verb, attribute))
    });
    let Some((verb, attribute)) = found.next() else {
        errors.at(
            &item.sig.ident,
            format!("which request does `{}` make?", item.sig.ident),
            "write for example `#[get(\"/orders/{id}\")]` above it",
        );
        return (None, None);
    };
    if let Some((_, second)) = found.next() {
        errors.at(second, "a method makes one request", "keep one of the two");
    }
    let Ok(literal) = attribute.parse_args::<LitStr>() else {
        errors.at(
            attribute,
            "which path?",
            format!("write for example `#[{verb}(\"/orders/{{id}}\")]`"),
        );
        return (Some(verb), None);
    };
    match template::read(&literal.value()) {
        Ok(pieces) => (Some(verb), Some((literal.value(), pieces))),
        Err(flaw) => {
            errors.at(&literal, flaw.what, flaw.help);
            (Some(verb), None)
        }
    }
}

pub(super) fn duration(item: &TraitItemFn, name: &str, errors: &mut Errors) -> Option<Given> {
    let attribute = extra(item, name)?;
    let Ok(literal) = attribute.parse_args::<LitStr>() else {
        errors.at(
            attribute,
            "how long?",
            format!("write for example `#[{name}(\"2s\")]`"),
        );
        return None;
    };
    match literals::duration(&literal.value()) {
        Ok(duration) => Some(Given {
            duration,
            tokens: literal.to_token_stream(),
        }),
        Err(flaw) => {
            errors.at(&literal, flaw.what, flaw.help);
            None
        }
    }
}

pub(super) fn retry(item: &TraitItemFn, errors: &mut Errors) -> Args {
    let Some(attribute) = extra(item, "retry") else {
        return Args::default();
    };
    match &attribute.meta {
        syn::Meta::List(list) if !list.tokens.is_empty() => {
            Args::parse(list.tokens.clone(), RETRY, "#[retry]", errors)
        }
        _ => {
            errors.at(
                attribute,
                "`#[retry]` needs its options in parentheses",
                "write for example `#[retry(attempts = 5)]`",
            );
            Args::default()
        }
    }
}
