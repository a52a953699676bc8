//! Pieces that several macros read or emit.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Meta};

use crate::args::{Args, Key};
use crate::diagnostics::Errors;

/// The codecs that come with the runtime, each behind its feature.
pub(crate) const CODECS: &[&str] = &["json", "msgpack", "protobuf"];

/// Reads all attributes called `name`, such as `#[message(..)]`, as one set of options.
pub(crate) fn options(
    attributes: &[Attribute],
    name: &str,
    keys: &'static [Key],
    errors: &mut Errors,
) -> Args {
    let of = format!("#[{name}]");
    let mut all = Args::default();
    for attribute in attributes {
        if !attribute.path().is_ident(name) {
            continue;
        }
        match &attribute.meta {
            Meta::List(list) => {
                let args = Args::parse(list.tokens.clone(), keys, &of, errors);
                all.merge(args, errors);
            }
            other => {
                let what = format!("`{of}` needs its options in parentheses");
                errors.at(other, what, format!("write `#[{name}(..)]`"));
            }
        }
    }
    all
}

/// A duration as an expression.
pub(crate) fn duration(duration: Duration) -> TokenStream {
    // Written as whole milliseconds, for at most a hundred years.
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    quote!(::core::time::Duration::from_millis(#millis))
}

/// Where `tokens` stand, for generated code: errors are shown there, and lints know that the user
/// did not write it.
pub(crate) fn place(tokens: &impl Spanned) -> Span {
    Span::call_site().located_at(tokens.span())
}

/// The tokens, all of them at one place.
pub(crate) fn placed(tokens: TokenStream, place: Span) -> TokenStream {
    let placed = tokens.into_iter().map(|mut token| {
        token.set_span(place);
        token
    });
    placed.collect()
}

/// An assertion that the compiler checks; `text` is what it says where `tokens` stand.
pub(crate) fn assertion(tokens: &impl Spanned, condition: &TokenStream, text: &str) -> TokenStream {
    // The text is a format string.
    let text = text.replace('{', "{{").replace('}', "}}");
    quote_spanned! {place(tokens)=>
        const _: () = ::core::assert!(#condition, #text);
    }
}

/// Names something that exists only with the feature of a codec, so that its absence is an error
/// which says which feature to add.
pub(crate) fn needs_feature(codec: &str) -> TokenStream {
    let module = Ident::new(&format!("needs_feature_{codec}"), Span::call_site());
    quote!(const _: () = __private::#module::ON;)
}
