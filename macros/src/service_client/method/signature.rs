//! The arguments of a method, and where each of them goes.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{Attribute, FnArg, LitStr, Pat, TraitItemFn, Type};

use crate::diagnostics::{Errors, suggestion};
use crate::signature::is_called;

use super::super::conditions;
use super::super::template::Piece;
use super::attributes::{PLACES, VERBS, extra};

pub(in super::super) struct Argument {
    pub(in super::super) name: Ident,
    pub(in super::super) ty: Type,
    pub(in super::super) place: Place,
}

impl Argument {
    /// Whether it is a body that is read once.
    pub(in super::super) fn is_stream(&self) -> bool {
        self.place == Place::Body(Format::Stream)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    Body(Format),
    Header { name: String, optional: bool },
    Path,
    Query(String),
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Format {
    Bytes,
    Form,
    Json,
    Msgpack,
    Stream,
}

/// Headers that are written for each attempt, whatever a method says, and what to write in their place.
const TAKEN: &[(&[&str], &str)] = &[
    (
        &["x-attempt"],
        "leave it out; the attempts are counted by themselves",
    ),
    (
        &["x-timeout-ms"],
        "leave it out, and write `#[timeout(\"2s\")]` for how long the call may take",
    ),
    (
        &["content-length"],
        "leave it out; for a stream `BodyStream::length` says it",
    ),
    (
        &[
            "connection",
            "expect",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ],
        "leave it out; connections are kept by themselves",
    ),
];

/// Checks what is written before the arguments.
pub(super) fn check(item: &TraitItemFn, errors: &mut Errors) {
    let signature = &item.sig;
    if signature.asyncness.is_none() {
        errors.at(
            signature.fn_token,
            "a method of a client must be an `async fn`",
            "write `async` before `fn`",
        );
    }
    if let Some(token) = &signature.constness {
        errors.at(
            token,
            "a method of a client cannot be `const`",
            "leave it out",
        );
    }
    if !matches!(signature.safety, syn::Safety::Default) {
        errors.at(
            &signature.safety,
            "a method of a client cannot be `unsafe`",
            "leave it out",
        );
    }
    if !signature.generics.params.is_empty() {
        errors.at(
            &signature.generics,
            "a method of a client cannot be generic",
            "write the type; lifetimes of references can be left out",
        );
    }
    if let Some(body) = &item.default {
        errors.at(
            body,
            "a method of a client has no body: it makes a request",
            "write `;`, and a function beside the trait for what uses it",
        );
    }
    match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) if receiver.to_token_stream().to_string() == "& self" => {}
        Some(FnArg::Receiver(receiver)) => {
            errors.at(receiver, "a client is used by `&self`", "write `&self`");
        }
        _ => errors.at(
            &signature.ident,
            "a method of a client takes `&self`",
            "write `&self` as its first argument",
        ),
    }
}

/// Reads the arguments.
pub(super) fn arguments(
    item: &TraitItemFn,
    verb: Option<&'static str>,
    pieces: &[Piece],
    errors: &mut Errors,
) -> Vec<Argument> {
    let placeholders: Vec<&str> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Value(name) => Some(&**name),
            Piece::Literal(_) => None,
        })
        .collect();
    // Without a path nobody knows which arguments stand in it.
    let has_path = !pieces.is_empty();
    let mut arguments: Vec<Argument> = Vec::new();
    for input in &item.sig.inputs {
        let FnArg::Typed(argument) = input else {
            continue;
        };
        let Pat::Ident(pattern) = &*argument.pat else {
            errors.at(
                &argument.pat,
                "an argument of a client has a name",
                "write for example `filter: Filter`",
            );
            continue;
        };
        let name = pattern.ident.clone();
        if let Some(condition) = conditions(&argument.attrs).next() {
            errors.at(
                condition,
                "a request has all arguments of its method",
                "write two methods, each with its own `#[cfg(..)]`",
            );
        }
        if let Type::ImplTrait(_) = &*argument.ty {
            errors.at(
                &argument.ty,
                "a method of a client must name the types of its arguments",
                "write the type in place of `impl ..`",
            );
            continue;
        }
        let place = place(argument, &name, &placeholders, errors);
        let Some(place) = place else {
            if has_path && !is_marked(argument) {
                no_place(&name, &argument.ty, verb, &placeholders, errors);
            }
            continue;
        };
        if let Place::Body(_) = place {
            if let Some(verb @ ("get" | "head")) = verb {
                errors.at(
                    &argument.ty,
                    format!("a {} request has no body", verb.to_uppercase()),
                    "mark it `#[query]`, or use `#[post(..)]`",
                );
            }
            if arguments
                .iter()
                .any(|other| matches!(other.place, Place::Body(_)))
            {
                errors.at(
                    &argument.ty,
                    "a request has one body",
                    "send both in one struct, or mark one of them `#[query]`",
                );
            }
        }
        if let Some(mark) = mark_of(argument) {
            only_one(mark, &place, &arguments, errors);
        }
        arguments.push(Argument {
            name,
            ty: (*argument.ty).clone(),
            place,
        });
    }
    if let Some(attribute) = VERBS.iter().find_map(|verb| extra(item, verb)) {
        for placeholder in placeholders {
            let mut inputs = item.sig.inputs.iter();
            let found = inputs.any(|input| match input {
                FnArg::Typed(argument) => {
                    pattern_name(&argument.pat).as_deref() == Some(placeholder)
                }
                FnArg::Receiver(_) => false,
            });
            if !found {
                missing_argument(item, placeholder, attribute, errors);
            }
        }
    }
    arguments
}

fn is_marked(argument: &syn::PatType) -> bool {
    mark_of(argument).is_some()
}

fn mark_of(argument: &syn::PatType) -> Option<&Attribute> {
    let mut attributes = argument.attrs.iter();
    attributes.find(|found| PLACES.iter().any(|place| found.path().is_ident(place)))
}

/// Of two headers of one name only one would be sent. A key of the query may come more than once: that is how
/// lists are written.
fn only_one(mark: &Attribute, place: &Place, others: &[Argument], errors: &mut Errors) {
    let Place::Header { name, .. } = place else {
        return;
    };
    let same = |other: &Argument| matches!(&other.place, Place::Header { name: known, .. } if known == name);
    if others.iter().any(same) {
        errors.at(
            mark,
            format!("the header `{name}` has a value already"),
            "give it another name, or leave out one of the two",
        );
    }
}

/// Where an argument goes; `None` if nowhere, or if what says so is wrong, which is noted.
fn place(
    argument: &syn::PatType,
    name: &Ident,
    placeholders: &[&str],
    errors: &mut Errors,
) -> Option<Place> {
    let plain = plain(name);
    let in_path = placeholders.contains(&&*plain);
    let mut marks = argument
        .attrs
        .iter()
        .filter(|found| PLACES.iter().any(|place| found.path().is_ident(place)));
    let Some(mark) = marks.next() else {
        return in_path.then_some(Place::Path);
    };
    if let Some(second) = marks.next() {
        errors.at(
            second,
            "an argument goes to one place",
            "keep one of its attributes",
        );
        return None;
    }
    if in_path {
        errors.at(
            mark,
            format!("`{plain}` stands in the path already"),
            "leave out the attribute, or give the argument another name",
        );
        return None;
    }
    if mark.path().is_ident("body") {
        return format(mark, &argument.ty, errors).map(Place::Body);
    }
    if mark.path().is_ident("query") {
        if mark.meta.require_path_only().is_ok() {
            return Some(Place::Query(plain));
        }
        let given = mark.parse_args::<LitStr>().ok().map(|text| text.value());
        let given = given.filter(|text| !text.is_empty());
        if given.is_none() {
            errors.at(
                mark,
                "which key?",
                "write `#[query]`, or for example `#[query(\"page-size\")]`",
            );
        }
        return given.map(Place::Query);
    }
    let given = mark.parse_args::<LitStr>().ok().map(|text| text.value());
    let is_header = |text: &String| {
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(of_name)
    };
    let Some(header) = given.filter(is_header) else {
        errors.at(
            mark,
            "which header?",
            "write its name, for example #[header(\"x-tenant\")]",
        );
        return None;
    };
    let header = header.to_ascii_lowercase();
    if let Some((_, help)) = TAKEN.iter().find(|(names, _)| names.contains(&&*header)) {
        errors.at(
            mark,
            format!("`{header}` is not for a method to send: each call has its own"),
            help,
        );
        return None;
    }
    Some(Place::Header {
        name: header,
        optional: is_called(&argument.ty, "Option"),
    })
}

fn format(mark: &Attribute, ty: &Type, errors: &mut Errors) -> Option<Format> {
    if let Type::Reference(reference) = ty
        && is_called(&reference.elem, "BodyStream")
    {
        errors.at(
            ty,
            "a stream is given away when it is sent",
            "write `BodyStream`",
        );
        return None;
    }
    let is_stream = is_called(ty, "BodyStream");
    if mark.meta.require_path_only().is_ok() {
        return Some(if is_stream {
            Format::Stream
        } else {
            Format::Json
        });
    }
    let word = mark.parse_args::<Ident>().ok().map(|word| word.to_string());
    let format = match word.as_deref() {
        Some("bytes") if is_stream => Format::Stream,
        Some("bytes") => Format::Bytes,
        Some("form") => Format::Form,
        Some("json") => Format::Json,
        Some("msgpack") => Format::Msgpack,
        other => {
            let known = ["json", "form", "msgpack", "bytes"];
            let near = other.and_then(|word| suggestion(word, known));
            let help = match near {
                Some(near) => format!("did you mean `#[body({near})]`?"),
                None => "write `#[body]` for JSON, or `#[body(form)]`, `#[body(msgpack)]`, `#[body(bytes)]`"
                    .to_owned(),
            };
            errors.at(mark, "a body has no such format", help);
            return None;
        }
    };
    if is_stream && format != Format::Stream {
        errors.at(
            mark,
            "a stream is sent as the bytes that it is",
            "write `#[body]`",
        );
        return None;
    }
    Some(format)
}

fn no_place(
    name: &Ident,
    ty: &Type,
    verb: Option<&str>,
    placeholders: &[&str],
    errors: &mut Errors,
) {
    let plain = plain(name);
    let near = suggestion(&plain, placeholders.iter().copied());
    let help = match (near, verb) {
        (Some(near), _) => format!("did you mean `{near}`, as in the path?"),
        (None, Some("get" | "head" | "delete")) => {
            format!("mark it `#[query]` or `#[header(\"..\")]`, or write `{{{plain}}}` in the path")
        }
        (None, _) => format!(
            "mark it `#[body]`, `#[query]` or `#[header(\"..\")]`, or write `{{{plain}}}` in the path"
        ),
    };
    errors.at(ty, format!("`{plain}` has no place in the request"), help);
}

fn missing_argument(
    item: &TraitItemFn,
    placeholder: &str,
    attribute: &Attribute,
    errors: &mut Errors,
) {
    // An argument without a place and of a like name has been spoken about already.
    let near = item.sig.inputs.iter().any(|input| match input {
        FnArg::Typed(argument) if !is_marked(argument) => pattern_name(&argument.pat)
            .is_some_and(|name| suggestion(&name, [placeholder]).is_some()),
        _ => false,
    });
    if near {
        return;
    }
    let what = format!("`{{{placeholder}}}` in the path has no argument");
    let help = format!("add `{placeholder}: ..` to the method");
    match attribute.parse_args::<LitStr>() {
        Ok(literal) => errors.at(literal, what, help),
        Err(_) => errors.at(attribute, what, help),
    }
}

fn pattern_name(pattern: &Pat) -> Option<String> {
    match pattern {
        Pat::Ident(pattern) => Some(plain(&pattern.ident)),
        _ => None,
    }
}

fn plain(name: &Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}
