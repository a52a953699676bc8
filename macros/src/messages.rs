//! `#[derive(Messages)]`: an enum of messages, for subscribers of several types.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Fields, Type};

use crate::args::{Args, Key, Kind};
use crate::diagnostics::Errors;
use crate::{emit, path};

const KEYS: &[Key] = &[Key::new("crate", Kind::Path)];

struct Model {
    ident: Ident,
    krate: TokenStream,
    variants: Vec<(Ident, Type)>,
}

pub(crate) fn expand(tokens: TokenStream) -> TokenStream {
    let input = match syn::parse2::<DeriveInput>(tokens) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let args = emit::options(&input.attrs, "messages", KEYS, &mut errors);
    let model = read(&input, &args, &mut errors);
    if errors.is_empty() {
        emit(&model)
    } else {
        let mut output = if input.generics.params.is_empty() {
            fallback(&model)
        } else {
            TokenStream::new()
        };
        output.extend(errors.into_tokens());
        output
    }
}

fn read(input: &DeriveInput, args: &Args, errors: &mut Errors) -> Model {
    let ident = input.ident.clone();
    if !input.generics.params.is_empty() {
        errors.at(
            &input.generics,
            "an enum of messages cannot be generic",
            "name the message types in its variants",
        );
    }
    let mut variants = Vec::new();
    match &input.data {
        Data::Enum(data) => {
            if data.variants.is_empty() {
                errors.at(
                    &ident,
                    format!("`{ident}` holds no message"),
                    "add a variant, for example `Placed(OrderPlaced)`",
                );
            }
            for variant in &data.variants {
                match &variant.fields {
                    Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                        let ty = fields.unnamed.iter().next().map(|field| field.ty.clone());
                        variants.extend(ty.map(|ty| (variant.ident.clone(), ty)));
                    }
                    _ => errors.at(
                        variant,
                        format!("`{}` does not hold one message", variant.ident),
                        format!(
                            "write `{}(OrderPlaced)` with the type of the message",
                            variant.ident
                        ),
                    ),
                }
            }
        }
        Data::Struct(data) => errors.at(
            data.struct_token,
            "`Messages` is for an enum of messages",
            "for a single message, derive `Message`",
        ),
        Data::Union(data) => errors.at(
            data.union_token,
            "`Messages` is for an enum of messages",
            "write an enum with a variant for each message",
        ),
    }
    Model {
        ident,
        krate: path::runtime(args),
        variants,
    }
}

fn emit(model: &Model) -> TokenStream {
    let Model {
        ident,
        krate,
        variants,
    } = model;
    let bounds = variants.iter().enumerate().map(|(number, (_, ty))| {
        quote_spanned! {emit::place(ty)=>
            impl __private::Variant<#number> for __Variants { type Message = #ty; }
        }
    });
    let contracts = (0..variants.len())
        .map(|number| quote!(__private::variant_contract::<__Variants, #number>()));
    let tries = variants.iter().enumerate().map(|(number, (variant, _))| {
        quote! {
            if let ::core::option::Option::Some(found) =
                __private::variant::<__Variants, #number>(encoded, message_type)
            {
                return found.map(Self::#variant);
            }
        }
    });
    let otherwise = match variants.as_slice() {
        [(only, _)] => quote! {
            if message_type.is_none() {
                return __private::only_variant::<__Variants, 0>(encoded).map(Self::#only);
            }
        },
        _ => TokenStream::new(),
    };
    let text = format!("two variants of `{ident}` hold messages of the same name");
    let contracts_of = quote!(<#ident as __private::Payload>::CONTRACTS);
    let condition = quote!(__private::all_distinct(#contracts_of));
    let distinct = emit::assertion(ident, &condition, &text);
    quote! {
        const _: () = {
            use #krate::__private;

            struct __Variants;
            #(#bounds)*
            #distinct

            impl __private::Payload for #ident {
                const CONTRACTS: &'static [&'static __private::Contract] = &[#(#contracts),*];

                fn decode(
                    encoded: __private::Encoded<'_>,
                    message_type: ::core::option::Option<&::core::primitive::str>,
                ) -> ::core::result::Result<Self, __private::PayloadError> {
                    #(#tries)*
                    #otherwise
                    ::core::result::Result::Err(__private::PayloadError::Unknown)
                }
            }
        };
    }
}

/// What lets other code go on after a mistake.
fn fallback(model: &Model) -> TokenStream {
    let Model { ident, krate, .. } = model;
    quote! {
        const _: () = {
            use #krate::__private;

            impl __private::Payload for #ident {
                const CONTRACTS: &'static [&'static __private::Contract] = &[];

                fn decode(
                    _: __private::Encoded<'_>,
                    _: ::core::option::Option<&::core::primitive::str>,
                ) -> ::core::result::Result<Self, __private::PayloadError> {
                    ::core::result::Result::Err(__private::PayloadError::Unknown)
                }
            }
        };
    }
}
