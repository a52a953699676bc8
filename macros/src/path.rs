//! The path under which the user's crate knows ours.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::args::Args;

/// The path that `crate = ..` gives, or the crate's own name.
pub(crate) fn runtime(args: &Args) -> TokenStream {
    match args.path("crate") {
        Some(path) => path.to_token_stream(),
        None => quote!(::interline),
    }
}

/// Where an item stands, as the runtime's `Location`.
pub(crate) fn location() -> TokenStream {
    quote! {
        __private::Location {
            file: ::core::file!(),
            line: ::core::line!(),
            column: ::core::column!(),
        }
    }
}
