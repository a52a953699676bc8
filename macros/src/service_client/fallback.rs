//! `#[fallback(..)]`: what a method gives where the service gives nothing.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, FnArg, Meta, Pat, Token, TraitItemFn, Type};

use crate::diagnostics::{Errors, suggestion};

use super::method::{Argument, Format, Place};

const HELP: &str = "write `#[fallback(no_order)]` with an `async fn no_order(error: CallError)` that \
                    returns what the method returns, `#[fallback(no_order(id))]` to hand it arguments by \
                    reference, or `#[fallback(value = Vec::new())]`";

/// What stands in for an answer.
pub(super) enum Fallback {
    /// An async function, with the arguments that it takes after the error.
    Function(syn::Path, Vec<Ident>),
    Value(Box<Expr>),
}

impl Parse for Fallback {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(syn::Ident) && input.peek2(Token![=]) && !input.peek2(Token![==]) {
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
                let what = "this is neither a function nor a value";
                errors.at(&list.tokens, what, HELP);
                return None;
            }
        };
        let Self::Function(_, wanted) = &fallback else {
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

    /// An argument that it wants and cannot have, because it was given away.
    pub(super) fn wants_of(&self, arguments: &[Argument]) -> Option<&Ident> {
        let Self::Function(_, wanted) = self else {
            return None;
        };
        let mut wanted = wanted.iter();
        wanted.find(|wanted| {
            let mut arguments = arguments.iter();
            arguments.any(|argument| {
                argument.name == **wanted && argument.place == Place::Body(Format::Stream)
            })
        })
    }

    /// What is evaluated where the service gave nothing but `__error`.
    pub(super) fn emit(&self, ok: &Type) -> TokenStream {
        match self {
            Self::Function(path, arguments) => {
                let span = path
                    .segments
                    .last()
                    .map_or_else(proc_macro2::Span::call_site, |last| last.ident.span());
                quote_spanned!(span=> #path(__error, #(&#arguments),*).await)
            }
            Self::Value(value) => quote!({
                ::core::mem::drop(__error);
                let __value: #ok = #value;
                ::core::result::Result::Ok(__value)
            }),
        }
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
