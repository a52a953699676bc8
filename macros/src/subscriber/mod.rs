//! `#[subscriber]`: a function that consumes messages.

mod emit;
pub(crate) mod options;

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{Attribute, Type, Visibility};

use crate::args::{Args, Value};
use crate::diagnostics::Errors;
use crate::signature::{self, Argument, Function, Payload, PayloadForm};
use crate::{literals, path};

/// What the attribute and the function say together.
struct Model {
    function: Ident,
    companion: Ident,
    visibility: Visibility,
    conditions: Vec<Attribute>,
    krate: TokenStream,
    args: Args,
    source: Source,
    payload: Payload,
    arguments: Vec<Argument>,
    output: TokenStream,
    /// What the replies in the output hold.
    replies: Vec<Type>,
}

/// Where the messages come from.
#[derive(Debug)]
enum Source {
    /// The payload's own contract.
    Contract,
    /// A topic of others, with the names of its placeholders.
    Topic(String),
}

pub(crate) fn expand(attribute: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let args = Args::parse(attribute, options::KEYS, "#[subscriber]", &mut errors);
    let mut output = signature::cleaned(item.clone());
    output.extend(expand_beside(&args, item, &mut errors));
    output.extend(errors.into_tokens());
    output
}

/// What stands beside the function.
fn expand_beside(args: &Args, item: &TokenStream, errors: &mut Errors) -> TokenStream {
    let kind = signature::kind_of(item);
    if kind.as_ref().is_none_or(|kind| kind != "fn") {
        refuse_item(item, kind, errors);
        return TokenStream::new();
    }
    let function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            return TokenStream::new();
        }
    };
    if function.is_method(errors) {
        return TokenStream::new();
    }
    let model = read(args, &function, errors);
    match model {
        Some(model) if errors.is_empty() => emit::emit(&model),
        _ => emit::fallback(args, &function),
    }
}

fn refuse_item(item: &TokenStream, kind: Option<Ident>, errors: &mut Errors) {
    let help = match kind.as_ref().map(ToString::to_string).as_deref() {
        Some("struct" | "enum") => {
            "for a message, write #[derive(Message)] with #[message(topic = \"..\")]"
        }
        Some("impl" | "trait" | "mod") => {
            "put it on each function that handles messages, outside of an `impl`"
        }
        _ => "put it on an `async fn` that takes the message as its first argument",
    };
    let what = "`#[subscriber]` is for functions";
    match kind {
        Some(kind) => errors.at(kind, what, help),
        None => errors.at(item, what, help),
    }
}

fn read(args: &Args, function: &Function, errors: &mut Errors) -> Option<Model> {
    function.check(errors);
    options::check(args, errors);
    check_attributes(function, errors);
    let arguments = function.arguments(errors);
    let ident = &function.signature.ident;
    let source = match args.text("topic") {
        Some(topic) => Source::Topic(topic),
        None => Source::Contract,
    };
    let payload = arguments.payload?;
    let model = Model {
        function: ident.clone(),
        companion: args.ident("companion").unwrap_or(ident).clone(),
        visibility: function.visibility.clone(),
        conditions: function.conditions().into_iter().cloned().collect(),
        krate: path::runtime(args),
        args: args.clone(),
        source,
        payload,
        arguments: arguments.rest,
        output: function.output(),
        replies: function.replies(),
    };
    check(&model, function, errors);
    Some(model)
}

fn check_attributes(function: &Function, errors: &mut Errors) {
    for attribute in &function.attributes {
        let last = attribute.path().segments.last();
        if last.is_some_and(|last| last.ident == "subscriber") {
            errors.at(
                attribute,
                "a function is one subscriber",
                "write all options in one #[subscriber(..)], or a second function",
            );
        }
    }
}

/// What the options and the function say only together.
fn check(model: &Model, function: &Function, errors: &mut Errors) {
    let args = &model.args;
    let ty = &model.payload.ty;
    let ident = function.signature.ident.to_string();
    if !args.has("name")
        && let Err(flaw) = literals::name(ident.trim_start_matches("r#"))
    {
        errors.at(
            &model.function,
            flaw.what,
            "give it a stable name with `name = \"..\"`",
        );
    }
    if model.payload.form == PayloadForm::Raw && !args.has("topic") {
        errors.at(
            ty,
            "`Raw` does not say which topic",
            "name it: #[subscriber(topic = \"..\", on_unknown = dead_letter)]",
        );
    }
    match (args.has("batch"), model.payload.batch) {
        (true, false) => errors.at_span(
            args.span("batch"),
            "`batch` is for a subscriber that takes a batch",
            format!("take `Batch<{}>`", ty.to_token_stream()),
        ),
        (false, true) => errors.at(
            ty,
            "a subscriber of batches must say how they are formed",
            "write for example #[subscriber(batch(max = 200, wait = \"50ms\"))]",
        ),
        _ => {}
    }
    check_settle(model, errors);
    check_texts(model, errors);
    check_replies(model, errors);
}

fn check_settle(model: &Model, errors: &mut Errors) {
    let settles: Vec<&Type> = model
        .arguments
        .iter()
        .filter_map(|argument| match argument {
            Argument::Extractor(ty) if signature::is_called(ty, "Settle") => Some(ty),
            _ => None,
        })
        .collect();
    let manual = model.args.word("ack") == Some("manual");
    match settles.as_slice() {
        [] if manual => errors.at_span(
            model.args.span("ack"),
            "with `ack = manual` the subscriber must take a `Settle`",
            "add `settle: Settle` to its arguments (an alias is not seen)",
        ),
        [_, second, ..] => errors.at(second, "a message is settled once", "keep one `Settle`"),
        [settle] if !manual && !model.args.has("ack") => errors.at(
            settle,
            "`Settle` is only for `ack = manual`",
            "add it: #[subscriber(ack = manual)]",
        ),
        [settle] if !manual => errors.at(
            settle,
            "`Settle` is only for `ack = manual`",
            "change `ack`, or leave the argument out",
        ),
        _ => {}
    }
}

/// A reply answers one message with a contract, once.
fn check_replies(model: &Model, errors: &mut Errors) {
    let Some(first) = model.replies.first() else {
        return;
    };
    if let Source::Topic(_) = model.source {
        errors.at(
            first,
            "a reply answers a message whose contract names it",
            "take a message of your own, with #[message(topic = \"..\", reply = ..)]",
        );
    }
    if let [_, second, ..] = model.replies.as_slice() {
        errors.at(second, "a request is answered once", "keep one `Reply`");
    }
}

/// Headers and segments: not of batches, and of placeholders that the topic has.
fn check_texts(model: &Model, errors: &mut Errors) {
    let placeholders: Option<&[String]> = match model.args.get("topic").map(|entry| &entry.value) {
        Some(Value::Topic(_, placeholders)) => Some(placeholders),
        _ => None,
    };
    for argument in &model.arguments {
        let (kind, ty) = match argument {
            Argument::Extractor(_) => continue,
            Argument::Header { ty, .. } => ("header", ty),
            Argument::Segment { ty, .. } => ("segment", ty),
        };
        if model.payload.batch {
            errors.at(
                ty,
                format!("a batch has no {kind} of its own: each of its messages has"),
                "read it from the items: `item.incoming().headers` and `item.incoming().topic`",
            );
        }
        if let (Argument::Segment { name, .. }, Some(placeholders)) = (argument, placeholders)
            && !placeholders.contains(name)
        {
            let near =
                crate::diagnostics::suggestion(name, placeholders.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{near}`? Write #[segment(\"{near}\")]"),
                None => format!("write `{{{name}}}` for a segment of the topic"),
            };
            errors.at(ty, format!("the topic has no segment `{{{name}}}`"), help);
        }
    }
}

/// The attributes that the type beside the function needs, under the function's own conditions.
fn companion(conditions: &[Attribute], visibility: &Visibility, name: &Ident) -> TokenStream {
    quote! {
        #(#conditions)*
        #[doc(hidden)]
        #[allow(
            dead_code,
            missing_debug_implementations,
            non_camel_case_types,
            unreachable_pub,
            reason = "the companion of a function, named like it"
        )]
        #visibility struct #name {}
    }
}
