//! `#[service_client]`: a trait whose methods are requests to another service.

mod emit;
mod fallback;
mod limits;
mod method;
mod template;
#[cfg(test)]
mod tests;

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident};
use syn::{Attribute, ItemTrait, TraitItem, Type};

use crate::args::{Args, Key, Kind};
use crate::diagnostics::Errors;
use crate::{path, signature};

use limits::Limits;
use method::Method;
use template::Piece;

pub(crate) const KEYS: &[Key] = &[
    Key::new("service", Kind::Name),
    Key::new("base", Kind::Text),
    Key::new("timeout", Kind::Duration),
    Key::new("attempt_timeout", Kind::Duration),
    Key::new("retry", Kind::Group(method::RETRY)),
    Key::new("error", Kind::Path),
    Key::new("client", Kind::Ident),
    Key::new("crate", Kind::Path),
];

/// What the attribute and the trait say together.
struct Model<'i> {
    item: &'i ItemTrait,
    names: Names,
    krate: TokenStream,
    service: String,
    base: String,
    limits: Limits,
    args: Args,
    methods: Vec<Method>,
}

/// The names of what is written beside the trait.
struct Names {
    client: Ident,
    /// The trait's mirror that can be an object.
    object: Ident,
    /// The runtime's module.
    http: Ident,
}

impl Names {
    fn of(item: &ItemTrait, args: &Args) -> Self {
        let name = item.ident.to_string();
        let name = name.trim_start_matches("r#");
        let client = format_ident!("{name}Client", span = item.ident.span());
        let given = args.ident("client").filter(|given| **given != item.ident);
        Self {
            client: given.cloned().unwrap_or(client),
            object: format_ident!("__{name}Object"),
            http: format_ident!("__{name}_http"),
        }
    }
}

pub(crate) fn expand(attribute: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let args = Args::parse(attribute, KEYS, "#[service_client]", &mut errors);
    let mut output = expand_item(&args, item, &mut errors);
    output.extend(errors.into_tokens());
    output
}

fn expand_item(args: &Args, item: &TokenStream, errors: &mut Errors) -> TokenStream {
    let kind = signature::kind_of(item);
    if kind.as_ref().is_none_or(|kind| kind != "trait") {
        let help = match kind.as_ref().map(ToString::to_string).as_deref() {
            Some("fn") => "write a trait, and the function as a method of it",
            Some("impl") => "put it on the trait; what implements it needs no attribute",
            _ => "write for example `pub trait Orders { .. }`",
        };
        let what = "`#[service_client]` is for traits";
        match kind {
            Some(kind) => errors.at(kind, what, help),
            None => errors.at(item, what, help),
        }
        return cleaned(item.clone());
    }
    let item: ItemTrait = match syn::parse2(item.clone()) {
        Ok(item) => item,
        Err(error) => {
            errors.push(error);
            return cleaned(item.clone());
        }
    };
    let model = read(args, &item, errors);
    let mut output = emit::emit_trait(&item);
    output.extend(match model {
        Some(model) if errors.is_empty() => emit::emit(&model),
        _ => emit::fallback(&item, &Names::of(&item, args), &path::runtime(args)),
    });
    output
}

/// Whether a method has limits or repeats of its own.
fn says_limits(member: &TraitItem) -> bool {
    const SAY: [&str; 3] = ["attempt_timeout", "retry", "timeout"];
    let TraitItem::Fn(function) = member else {
        return false;
    };
    let says = |name: &&str| function.attrs.iter().any(|one| one.path().is_ident(name));
    SAY.iter().any(says)
}

fn read<'i>(args: &Args, item: &'i ItemTrait, errors: &mut Errors) -> Option<Model<'i>> {
    check_item(item, errors);
    if !args.has("service") {
        errors.at(
            &item.ident,
            "which service does it call?",
            "write its name: #[service_client(service = \"orders\")]",
        );
    }
    if let (Some(given), Some(entry)) = (args.ident("client"), args.get("client"))
        && *given == item.ident
    {
        let help = format!("write for example `client = {given}Client`, or leave it out");
        errors.at(&entry.tokens, "the trait itself has this name", help);
    }
    let base = args.text("base").unwrap_or_default();
    if let (Some(entry), Err(flaw)) = (args.get("base"), template::check_base(&base)) {
        errors.at(&entry.tokens, flaw.what, flaw.help);
    }
    let service = args.text("service");
    let limits = Limits::of_trait(args);
    // Those of the trait are defaults: what has no effect beside the rest of them has one for a method that says
    // some of them itself.
    if !item.items.iter().any(says_limits) {
        limits.check(&Limits::default(), errors);
    }
    let mut methods: Vec<Method> = Vec::new();
    let mut all = true;
    for member in &item.items {
        let TraitItem::Fn(function) = member else {
            errors.at(
                member,
                "a client has methods and nothing else",
                "move it to a trait of its own",
            );
            continue;
        };
        match method::read(function, &limits, errors) {
            Some(method) => {
                // Of two with different conditions there may be only one at a time.
                let same = |other: &&Method| {
                    other.verb == method.verb
                        && shape(&other.pieces) == shape(&method.pieces)
                        && written(&other.conditions) == written(&method.conditions)
                };
                let elsewhere = method.fallback.as_ref();
                let elsewhere = elsewhere.and_then(|fallback| fallback.service.as_ref());
                if let Some(elsewhere) = elsewhere
                    && Some(elsewhere.value()) == service
                {
                    errors.at(
                        elsewhere,
                        "this is the service that gave nothing",
                        "name another one, or use `#[retry(..)]`",
                    );
                }
                if let Some(other) = methods.iter().find(same) {
                    errors.at(
                        &method.ident,
                        format!("`{}` makes the same request", other.ident),
                        "change the path or the kind of one of the two, or leave it out",
                    );
                }
                // The compiler says it of the trait, and need not say it again of what is made of it.
                let twice = |other: &Method| {
                    other.ident == method.ident
                        && written(&other.conditions) == written(&method.conditions)
                };
                all &= !methods.iter().any(twice);
                methods.push(method);
            }
            None => all = false,
        }
    }
    let service = service?;
    all.then(|| Model {
        item,
        names: Names::of(item, args),
        krate: path::runtime(args),
        service,
        base,
        limits,
        args: args.clone(),
        methods,
    })
}

/// A template without the names of its values.
fn shape(pieces: &[Piece]) -> Vec<Option<&str>> {
    let shape = pieces.iter().map(|piece| match piece {
        Piece::Literal(text) => Some(&**text),
        Piece::Value(_) => None,
    });
    shape.collect()
}

fn check_item(item: &ItemTrait, errors: &mut Errors) {
    if let Some(token) = &item.unsafety {
        errors.at(token, "a client cannot be `unsafe`", "leave it out");
    }
    if !item.generics.params.is_empty() {
        errors.at(
            &item.generics,
            "a client cannot be generic",
            "write one trait for each type",
        );
    }
    if item.items.is_empty() {
        errors.at(
            &item.ident,
            "a client without a method calls nothing",
            "write for example `#[get(\"/orders/{id}\")] async fn order(&self, id: u64) -> Result<Order, CallError>;`",
        );
    }
    for attribute in &item.attrs {
        let last = attribute.path().segments.last();
        if last.is_some_and(|last| last.ident == "service_client") {
            errors.at(
                attribute,
                "a trait is the client of one service",
                "write all options in one #[service_client(..)]",
            );
        }
    }
}

/// Attributes as text.
fn written(attributes: &[Attribute]) -> String {
    let tokens: TokenStream = attributes.iter().map(ToTokens::to_token_stream).collect();
    tokens.to_string()
}

/// Under which conditions there is what these attributes stand on.
fn conditions(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
}

fn is_ours(attribute: &Attribute) -> bool {
    let Some(last) = attribute.path().segments.last() else {
        return false;
    };
    let names = method::VERBS
        .iter()
        .chain(method::EXTRAS)
        .chain(method::PLACES);
    names
        .chain(&["service_client"])
        .any(|name| last.ident == name)
}

/// The item without the attributes that only we understand. Works on anything, also on what does not
/// parse, so that the item never disappears.
fn cleaned(item: TokenStream) -> TokenStream {
    let names = method::VERBS
        .iter()
        .chain(method::EXTRAS)
        .chain(method::PLACES);
    let names: Vec<_> = names.copied().chain(["service_client"]).collect();
    cleaned_of(item, &names)
}

fn cleaned_of(tokens: TokenStream, names: &[&str]) -> TokenStream {
    let inside = |token| match token {
        TokenTree::Group(group) if group.delimiter() != Delimiter::None => {
            let mut cleaned = Group::new(group.delimiter(), cleaned_of(group.stream(), names));
            cleaned.set_span(group.span());
            TokenTree::Group(cleaned)
        }
        other => other,
    };
    signature::without(tokens, names)
        .into_iter()
        .map(inside)
        .collect()
}

/// A type in which every lifetime that is left out, or is `'_`, has this name.
fn with_lifetime(ty: &Type, name: &str) -> TokenStream {
    fill(ty.to_token_stream(), name)
}

fn fill(tokens: TokenStream, name: &str) -> TokenStream {
    let lifetime = || syn::Lifetime::new(name, proc_macro2::Span::call_site()).to_token_stream();
    let mut filled = TokenStream::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '&' => {
                filled.extend([token]);
                let named =
                    matches!(rest.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '\'');
                if !named {
                    filled.extend(lifetime());
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                let anonymous =
                    matches!(rest.peek(), Some(TokenTree::Ident(ident)) if ident == "_");
                if anonymous {
                    rest.next();
                    filled.extend(lifetime());
                } else {
                    filled.extend([token]);
                }
            }
            TokenTree::Group(group) => {
                let mut inside = Group::new(group.delimiter(), fill(group.stream(), name));
                inside.set_span(group.span());
                filled.extend([TokenTree::Group(inside)]);
            }
            _ => filled.extend([token]),
        }
    }
    filled
}
