//! One method of a client: where each argument goes, and what becomes of the answer.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{
    Attribute, FnArg, GenericArgument, LitStr, Pat, PathArguments, ReturnType, TraitItemFn, Type,
};

use crate::args::{Args, Key, Kind};
use crate::diagnostics::{Errors, suggestion};
use crate::literals;
use crate::signature::is_called;

use super::fallback::Fallback;
use super::template::{self, Piece};

/// The attributes that say which request a method makes.
pub(super) const VERBS: &[&str] = &["get", "post", "put", "patch", "delete", "head"];
/// The other attributes of a method.
pub(super) const EXTRAS: &[&str] = &[
    "idempotent",
    "timeout",
    "attempt_timeout",
    "retry",
    "fallback",
    "reconnect",
    "cache",
];
/// The attributes of arguments.
pub(super) const PLACES: &[&str] = &["query", "header", "body"];

pub(super) const RETRY: &[Key] = &[
    Key::new("attempts", Kind::Number(1, 20)),
    Key::new("first", Kind::Duration),
    Key::new("max", Kind::Duration),
    Key::new("hedge", Kind::Duration),
];

pub(super) const CACHE: &[Key] = &[
    Key::new("ttl", Kind::Duration),
    Key::new("stale_if_error", Kind::Duration),
    Key::new("stale_while_revalidate", Kind::Duration),
];

/// What is known of a method that has no mistake.
pub(super) struct Method {
    pub(super) ident: Ident,
    pub(super) verb: &'static str,
    pub(super) template: String,
    pub(super) pieces: Vec<Piece>,
    pub(super) keyed: bool,
    pub(super) reconnects: bool,
    /// In the places of its options: `timeout`, `attempt_timeout`.
    pub(super) timeout: Option<std::time::Duration>,
    pub(super) attempt_timeout: Option<std::time::Duration>,
    pub(super) retry: Args,
    pub(super) fallback: Option<Fallback>,
    pub(super) cache: Option<Args>,
    pub(super) arguments: Vec<Argument>,
    pub(super) shape: Shape,
    pub(super) output: Type,
    pub(super) ok: Type,
    pub(super) error: Type,
}

pub(super) struct Argument {
    pub(super) name: Ident,
    pub(super) ty: Type,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Body(Format),
    Header { name: String, optional: bool },
    Path,
    Query(String),
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Bytes,
    Form,
    Json,
    Msgpack,
    Stream,
}

/// How the answer is read.
pub(super) enum Shape {
    Bytes,
    Events,
    Json(Box<Type>),
    Nothing,
    Optional(Box<Self>),
    Response(Box<Self>),
    Stream,
}

/// Reads a method. `None` after noting what is wrong.
pub(super) fn read(item: &TraitItemFn, errors: &mut Errors) -> Option<Method> {
    let before = errors.count();
    check_signature(item, errors);
    let (verb, path) = verb(item, errors);
    let (template, pieces) = path.unwrap_or_default();
    let keyed = extra(item, "idempotent").inspect(|attribute| {
        if attribute.meta.require_path_only().is_err() {
            errors.at(
                attribute,
                "`#[idempotent]` has no options",
                "write `#[idempotent]`",
            );
        }
    });
    let timeout = duration(item, "timeout", errors);
    let attempt_timeout = duration(item, "attempt_timeout", errors);
    let retry = retry(item, errors);
    let fallback = extra(item, "fallback");
    let fallback = fallback.and_then(|attribute| Fallback::read(attribute, item, errors));
    once(item, errors);
    let arguments = arguments(item, verb, &pieces, errors);
    let returned = returned(item, verb, errors);
    let shape = returned.as_ref().map(|(shape, ..)| shape);
    if let (Some(attribute), Some(verb @ ("post" | "patch")), None) =
        (extra(item, "retry"), verb, keyed)
    {
        errors.at(
            attribute,
            format!("a {} may not be repeated: it would be done twice", verb.to_uppercase()),
            "add `#[idempotent]`, which sends an `Idempotency-Key` that the service must honour, or \
             leave out `#[retry]`",
        );
    }
    let cache = cache(item, verb, shape, errors);
    let repeats = (keyed.is_some(), verb, &*arguments);
    let reconnects = reconnects(item, shape, repeats, errors);
    if let Some(gone) = fallback
        .as_ref()
        .and_then(|fallback| fallback.wants_of(&arguments))
    {
        errors.at(
            gone,
            format!("`{gone}` is gone when the fallback is called: it was sent"),
            "leave it out",
        );
    }
    if errors.count() > before {
        return None;
    }
    let (shape, output, [ok, error]) = returned?;
    Some(Method {
        ident: item.sig.ident.clone(),
        verb: verb?,
        template,
        pieces,
        keyed: keyed.is_some(),
        reconnects,
        timeout,
        attempt_timeout,
        retry,
        fallback,
        cache,
        arguments,
        shape,
        output,
        ok,
        error,
    })
}

fn check_signature(item: &TraitItemFn, errors: &mut Errors) {
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

fn extra<'i>(item: &'i TraitItemFn, name: &str) -> Option<&'i Attribute> {
    item.attrs.iter().find(|found| found.path().is_ident(name))
}

fn cache(
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

fn reconnects(
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
    let is_stream = |argument: &Argument| argument.place == Place::Body(Format::Stream);
    if arguments.iter().any(is_stream) {
        errors.at(
            attribute,
            "asking again would send the body again, and a stream is read once",
            "send it as `#[body(bytes)]`, or leave out `#[reconnect]`",
        );
    }
    true
}

/// Of two attributes of one name only the first would count.
fn once(item: &TraitItemFn, errors: &mut Errors) {
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

fn verb(item: &TraitItemFn, errors: &mut Errors) -> (Option<&'static str>, Option<Path>) {
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

fn duration(item: &TraitItemFn, name: &str, errors: &mut Errors) -> Option<std::time::Duration> {
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
        Ok(duration) => Some(duration),
        Err(flaw) => {
            errors.at(&literal, flaw.what, flaw.help);
            None
        }
    }
}

fn retry(item: &TraitItemFn, errors: &mut Errors) -> Args {
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

fn arguments(
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
    let mut attributes = argument.attrs.iter();
    attributes.any(|found| PLACES.iter().any(|place| found.path().is_ident(place)))
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
    Some(Place::Header {
        name: header.to_ascii_lowercase(),
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

/// How the answer is read; what is returned, and the two types that it is made of.
type Returned = Option<(Shape, Type, [Type; 2])>;

fn returned(item: &TraitItemFn, verb: Option<&str>, errors: &mut Errors) -> Returned {
    const HELP: &str = "write for example `Result<Order, CallError>`";
    let ReturnType::Type(_, output) = &item.sig.output else {
        errors.at(
            &item.sig.ident,
            "a call can fail, so a client returns a `Result`",
            HELP,
        );
        return None;
    };
    let Some([ok, error]) = result_of(output) else {
        let what =
            "a call can fail, so a client returns a `Result` with its error (an alias is not seen)";
        errors.at(output, what, HELP);
        return None;
    };
    let shape = shape(ok);
    if verb == Some("head") && !shape.is_without_body() {
        errors.at(
            ok,
            "the answer to a HEAD request has no body",
            "write `Result<Response<()>, ..>` for its headers, or `Result<(), ..>`",
        );
    }
    Some((shape, (**output).clone(), [ok.clone(), error.clone()]))
}

/// The two types of `Result<T, E>`.
fn result_of(ty: &Type) -> Option<[&Type; 2]> {
    let arguments = arguments_of(ty, "Result")?;
    match arguments.as_slice() {
        [ok, error] => Some([ok, error]),
        _ => None,
    }
}

fn arguments_of<'t>(ty: &'t Type, name: &str) -> Option<Vec<&'t Type>> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path
        .path
        .segments
        .last()
        .filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    Some(types.collect())
}

fn shape(ty: &Type) -> Shape {
    let inner = |name| match arguments_of(ty, name)?.as_slice() {
        [inner] => Some(Box::new(shape(inner))),
        _ => None,
    };
    if let Some(inner) = inner("Option") {
        return Shape::Optional(inner);
    }
    if let Some(inner) = inner("Response") {
        return Shape::Response(inner);
    }
    match ty {
        Type::Tuple(tuple) if tuple.elems.is_empty() => Shape::Nothing,
        _ if is_called(ty, "Bytes") => Shape::Bytes,
        _ if is_called(ty, "ByteStream") => Shape::Stream,
        _ if is_called(ty, "EventStream") => Shape::Events,
        _ => Shape::Json(Box::new(ty.clone())),
    }
}

impl Shape {
    fn is_without_body(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Optional(inner) | Self::Response(inner) => inner.is_without_body(),
            Self::Bytes | Self::Events | Self::Json(_) | Self::Stream => false,
        }
    }

    fn is_streamed(&self) -> bool {
        match self {
            Self::Events | Self::Stream => true,
            Self::Optional(inner) | Self::Response(inner) => inner.is_streamed(),
            Self::Bytes | Self::Json(_) | Self::Nothing => false,
        }
    }

    fn is_events(&self) -> bool {
        match self {
            Self::Events => true,
            Self::Optional(inner) | Self::Response(inner) => inner.is_events(),
            Self::Bytes | Self::Json(_) | Self::Nothing | Self::Stream => false,
        }
    }

    /// The runtime's reader, in the module `http`.
    pub(super) fn reader(&self, http: &Ident) -> TokenStream {
        match self {
            Self::Bytes => quote!(#http::Raw),
            Self::Events => quote!(#http::Events),
            Self::Stream => quote!(#http::Pieces),
            Self::Json(ty) => quote!(#http::Json<#ty>),
            Self::Nothing => quote!(#http::Empty),
            Self::Optional(inner) => {
                let inner = inner.reader(http);
                quote!(#http::Maybe<#inner>)
            }
            Self::Response(inner) => {
                let inner = inner.reader(http);
                quote!(#http::Full<#inner>)
            }
        }
    }
}
