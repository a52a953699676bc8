//! `service!`: the identity of a crate that holds handlers.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::LitStr;
use syn::parse::{Parse, ParseStream};

use crate::args::{Args, Key, Kind};
use crate::diagnostics::Errors;
use crate::{emit, literals, path};

const KEYS: &[Key] = &[Key::new("crate", Kind::Path)];

const HELP: &str = "write for example `interline::service!(\"billing\");` at the root of the crate";

/// The module that `service!` makes and `#[subscriber]` names: what a compiler says is missing when
/// `service!` is.
pub(crate) fn anchor() -> Ident {
    Ident::new(
        "write_interline_service_at_the_crate_root",
        Span::call_site(),
    )
}

struct Model {
    name: String,
    krate: TokenStream,
}

struct Input {
    name: LitStr,
    rest: TokenStream,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.parse()?;
        if !input.is_empty() {
            input.parse::<syn::Token![,]>()?;
        }
        let rest = input.parse()?;
        Ok(Self { name, rest })
    }
}

pub(crate) fn expand(tokens: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let model = read(tokens, &mut errors);
    let mut output = write(&model);
    output.extend(errors.into_tokens());
    output
}

fn read(tokens: TokenStream, errors: &mut Errors) -> Model {
    let input = match syn::parse2::<Input>(tokens.clone()) {
        Ok(input) => input,
        Err(_) => {
            if tokens.is_empty() {
                errors.at_span(Span::call_site(), "a service needs a name", HELP);
            } else {
                errors.at(tokens, "expected the name of the service as a string", HELP);
            }
            Input {
                name: LitStr::new("service", Span::call_site()),
                rest: TokenStream::new(),
            }
        }
    };
    let args = Args::parse(input.rest, KEYS, "service!", errors);
    if let Err(flaw) = literals::name(&input.name.value()) {
        errors.at(&input.name, flaw.what, flaw.help);
    }
    Model {
        name: input.name.value(),
        krate: path::runtime(&args),
    }
}

fn write(model: &Model) -> TokenStream {
    let Model { name, krate } = model;
    let anchor = anchor();
    let location = path::location();
    let nested =
        "`service!` stands at the root of its crate, in lib.rs or main.rs, not in a module";
    let condition = quote!(__private::is_crate_root(::core::module_path!()));
    let at_root = emit::assertion(&TokenStream::new(), &condition, nested);
    quote! {
        #[doc(hidden)]
        pub mod #anchor {
            #[derive(::core::fmt::Debug)]
            pub struct ThisCrate;
        }

        /// This crate's service, for `App::with`.
        #[must_use]
        pub fn service() -> #krate::registry::Service {
            #krate::registry::Service::new(
                <#anchor::ThisCrate as #krate::__private::ThisCrate>::IDENTITY,
            )
        }

        const _: () = {
            use #krate::__private;

            #at_root

            impl __private::ThisCrate for #anchor::ThisCrate {
                const IDENTITY: &'static __private::ServiceIdentity =
                    &__private::ServiceIdentity::new(
                        #name,
                        ::core::env!("CARGO_PKG_NAME"),
                        ::core::env!("CARGO_PKG_VERSION"),
                        ::core::module_path!(),
                        ::core::option_env!("CARGO_BIN_NAME").is_some(),
                        #location,
                    );
            }

            __private::inventory::submit! {
                __private::Registration::Service(
                    <#anchor::ThisCrate as __private::ThisCrate>::IDENTITY,
                )
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tokens: TokenStream) -> Vec<String> {
        let mut errors = Errors::default();
        read(tokens, &mut errors);
        errors.texts()
    }

    #[test]
    fn a_name_is_wanted() {
        assert_eq!(texts(quote!("billing")), [""; 0]);
        assert_eq!(texts(quote!("billing", crate = ::other)), [""; 0]);
        assert_eq!(
            texts(quote!()),
            [format!("a service needs a name\n  help: {HELP}")]
        );
        assert_eq!(
            texts(quote!(billing)),
            [format!(
                "expected the name of the service as a string\n  help: {HELP}"
            )]
        );
        assert_eq!(
            texts(quote!("bill ing", krate = x)),
            [
                "unknown option `krate` for `service!`\n  help: did you mean `crate`?",
                "the name `bill ing` holds ` `\n  help: only letters, digits, `-`, `_` and dots are allowed",
            ]
        );
    }
}
