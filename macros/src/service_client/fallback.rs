//! `#[fallback(..)]`: what a method gives where the service gives nothing.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, FnArg, LitStr, Meta, Pat, Token, TraitItemFn, Type};

use crate::diagnostics::{Errors, suggestion};
use crate::literals;

use super::method::Argument;

const HELP: &str = "write `#[fallback(no_order)]` with an `async fn no_order(error: CallError)` that \
                    returns what the method returns, `#[fallback(no_order(id))]` to hand it arguments by \
                    reference, `#[fallback(value = Vec::new())]`, or `#[fallback(service = \"..\")]` for \
                    another service that understands the same request";

/// What stands in for an answer.
pub(super) struct Fallback {
    /// Another service that is asked first.
    pub(super) service: Option<LitStr>,
    /// What is given where that gives nothing either.
    last: Option<Last>,
}

enum Last {
    /// An async function, with the arguments that it takes after the error.
    Function(syn::Path, Vec<Ident>),
    Value(Box<Expr>),
}

impl Parse for Fallback {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut service = None;
        if is_key(input) && input.fork().parse::<Ident>()? == "service" {
            input.parse::<Ident>()?;
            input.parse::<Token![=]>()?;
            service = Some(input.parse()?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let last = match service.is_some() && input.is_empty() {
            true => None,
            false => Some(input.parse()?),
        };
        Ok(Self { service, last })
    }
}

impl Parse for Last {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if is_key(input) {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            if key != "value" {
                return Err(syn::Error::new_spanned(
                    &key,
                    format!("unknown option `{key}` for `#[fallback]`"),
                ));
            }
            return Ok(Self::Value(Box::new(input.parse()?)));
        }
        let path = input.call(syn::Path::parse_mod_style)?;
        let mut arguments = Vec::new();
        if input.peek(syn::token::Paren) {
            let inside;
            syn::parenthesized!(inside in input);
            let names = Punctuated::<Ident, Token![,]>::parse_terminated(&inside)?;
            arguments.extend(names);
        }
        Ok(Self::Function(path, arguments))
    }
}

fn is_key(input: ParseStream<'_>) -> bool {
    input.peek(syn::Ident) && input.peek2(Token![=]) && !input.peek2(Token![==])
}

impl Fallback {
    /// Reads the attribute. `None` after noting what is wrong.
    pub(super) fn read(
        attribute: &Attribute,
        item: &TraitItemFn,
        errors: &mut Errors,
    ) -> Option<Self> {
        let Meta::List(list) = &attribute.meta else {
            errors.at(attribute, "what is given in place of an answer?", HELP);
            return None;
        };
        if list.tokens.is_empty() {
            errors.at(attribute, "what is given in place of an answer?", HELP);
            return None;
        }
        let fallback = match syn::parse2::<Self>(list.tokens.clone()) {
            Ok(fallback) => fallback,
            Err(_) => {
                let what = "this is no function, no value and no other service";
                errors.at(&list.tokens, what, HELP);
                return None;
            }
        };
        if let Some(service) = &fallback.service
            && let Err(flaw) = literals::name(&service.value())
        {
            errors.at(service, flaw.what, flaw.help);
            return None;
        }
        let Some(Last::Function(_, wanted)) = &fallback.last else {
            return Some(fallback);
        };
        let names: Vec<String> = item.sig.inputs.iter().filter_map(name_of).collect();
        let mut all = true;
        for wanted in wanted {
            let plain = wanted.to_string();
            if names.contains(&plain) {
                continue;
            }
            all = false;
            let help = match suggestion(&plain, names.iter().map(|name| &**name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name arguments of the method; the error comes first by itself".to_owned(),
            };
            let what = format!("the method has no argument `{plain}`");
            errors.at(wanted, what, help);
        }
        all.then_some(fallback)
    }

    /// Notes what another service cannot be sent.
    pub(super) fn check_service(
        &self,
        (keyed, verb, arguments): (bool, Option<&str>, &[Argument]),
        errors: &mut Errors,
    ) {
        let Some(service) = &self.service else {
            return;
        };
        if let (Some(verb @ ("post" | "patch")), false) = (verb, keyed) {
            errors.at(
                service,
                format!("the {} may be done by both services", verb.to_uppercase()),
                "add `#[idempotent]`, which sends the same `Idempotency-Key` to both, or give a value or \
                 a function in place of the service",
            );
        }
        if arguments.iter().any(Argument::is_stream) {
            errors.at(
                service,
                "a stream is read once, so it is not sent to a second service",
                "send it as `#[body(bytes)]`, or give a value or a function in place of the service",
            );
        }
    }

    /// An argument that it wants and cannot have, because it was given away.
    pub(super) fn wants_of(&self, arguments: &[Argument]) -> Option<&Ident> {
        let Some(Last::Function(_, wanted)) = &self.last else {
            return None;
        };
        let mut wanted = wanted.iter();
        wanted.find(|wanted| {
            let mut arguments = arguments.iter();
            arguments.any(|argument| argument.name == **wanted && argument.is_stream())
        })
    }

    /// What is evaluated where no service gave anything but `__error`; `None` where that error stays.
    pub(super) fn emit(&self, ok: &Type) -> Option<TokenStream> {
        Some(match self.last.as_ref()? {
            Last::Function(path, arguments) => {
                let span = path
                    .segments
                    .last()
                    .map_or_else(proc_macro2::Span::call_site, |last| last.ident.span());
                quote_spanned!(span=> #path(__error, #(&#arguments),*).await)
            }
            Last::Value(value) => quote!({
                ::core::mem::drop(__error);
                let __value: #ok = #value;
                ::core::result::Result::Ok(__value)
            }),
        })
    }
}

fn name_of(input: &FnArg) -> Option<String> {
    match input {
        FnArg::Typed(argument) => match &*argument.pat {
            Pat::Ident(pattern) => Some(pattern.ident.to_token_stream().to_string()),
            _ => None,
        },
        FnArg::Receiver(_) => None,
    }
}
