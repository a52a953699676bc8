//! `#[derive(Failure)]`: what becomes of a message whose handling failed.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Data, DeriveInput, Fields, Generics, Member, Type};

use crate::args::{Args, Key, Kind, Value};
use crate::diagnostics::{Errors, suggestion};
use crate::{emit, path};

const FATES: &[Key] = &[
    Key::new(
        "retry",
        Kind::FlagOrGroup(&[Key::new("after", Kind::DurationOrMember)]),
    ),
    Key::new("dead_letter", Kind::Flag),
    Key::new("discard", Kind::Flag),
    Key::new("pause", Kind::Duration),
];

const KEYS: &[Key] = &[Key::new("crate", Kind::Path)];

const HELP: &str =
    "add #[fate(retry)], #[fate(dead_letter)], #[fate(discard)] or #[fate(pause = \"30s\")]";

struct Model {
    ident: Ident,
    generics: Generics,
    krate: TokenStream,
    cases: Vec<Case>,
}

/// A variant, or the struct itself.
struct Case {
    /// None for a struct.
    variant: Option<Ident>,
    fate: Fate,
}

enum Fate {
    Retry,
    RetryAfter(Duration),
    RetryAfterField(Box<(Member, Type)>),
    DeadLetter,
    Discard,
    Pause(Duration),
}

pub(crate) fn expand(tokens: TokenStream) -> TokenStream {
    let input = match syn::parse2::<DeriveInput>(tokens) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let args = emit::options(&input.attrs, "failure", KEYS, &mut errors);
    let model = read(&input, &args, &mut errors);
    if errors.is_empty() {
        emit(&model)
    } else {
        let mut output = fallback(&model);
        output.extend(errors.into_tokens());
        output
    }
}

fn read(input: &DeriveInput, args: &Args, errors: &mut Errors) -> Model {
    let mut cases = Vec::new();
    match &input.data {
        Data::Struct(data) => {
            let fate = read_fate(&input.attrs, &input.ident, &data.fields, errors);
            cases.extend(fate.map(|fate| Case {
                variant: None,
                fate,
            }));
        }
        Data::Enum(data) => {
            for attribute in input.attrs.iter().filter(|attribute| is_fate(attribute)) {
                errors.at(
                    attribute,
                    "an enum has no fate of its own",
                    "give each of its variants one",
                );
            }
            for variant in &data.variants {
                let fate = read_fate(&variant.attrs, &variant.ident, &variant.fields, errors);
                cases.extend(fate.map(|fate| Case {
                    variant: Some(variant.ident.clone()),
                    fate,
                }));
            }
        }
        Data::Union(data) => errors.at(
            data.union_token,
            "a union cannot be a failure",
            "write an enum, or a struct",
        ),
    }
    Model {
        ident: input.ident.clone(),
        generics: input.generics.clone(),
        krate: path::runtime(args),
        cases,
    }
}

fn is_fate(attribute: &Attribute) -> bool {
    attribute.path().is_ident("fate")
}

fn read_fate(
    attributes: &[Attribute],
    ident: &Ident,
    fields: &Fields,
    errors: &mut Errors,
) -> Option<Fate> {
    if !attributes.iter().any(is_fate) {
        let what = format!("`{ident}` does not say what becomes of the message");
        errors.at(ident, what, HELP);
        return None;
    }
    let before = errors.count();
    let args = emit::options(attributes, "fate", FATES, errors);
    let mut entries = args.entries().iter();
    let Some(entry) = entries.next() else {
        if errors.count() == before {
            errors.at(ident, format!("the fate of `{ident}` is empty"), HELP);
        }
        return None;
    };
    for second in entries {
        let what = format!(
            "`{ident}` has two fates, `{}` and `{}`",
            entry.key, second.key
        );
        errors.at(&second.key, what, "keep one");
    }
    match (entry.key.to_string().as_str(), &entry.value) {
        ("retry", Value::Group(after)) => match &after.get("after")?.value {
            Value::Duration(duration) => Some(Fate::RetryAfter(*duration)),
            Value::Member(member) => find(member, ident, fields, errors)
                .map(|ty| Fate::RetryAfterField(Box::new((member.clone(), ty)))),
            _ => None,
        },
        ("retry", _) => Some(Fate::Retry),
        ("dead_letter", _) => Some(Fate::DeadLetter),
        ("discard", _) => Some(Fate::Discard),
        ("pause", Value::Duration(duration)) => Some(Fate::Pause(*duration)),
        _ => None,
    }
}

fn find(member: &Member, of: &Ident, fields: &Fields, errors: &mut Errors) -> Option<Type> {
    let names: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(index, field)| match &field.ident {
            Some(ident) => ident.to_string(),
            None => index.to_string(),
        })
        .collect();
    let wanted = match member {
        Member::Named(ident) => ident.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    };
    let found = names.iter().position(|name| *name == wanted);
    if found.is_none() {
        let help = match suggestion(&wanted, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "name a field of type `Duration`, or write a duration such as \"5s\"".to_owned()
            }
        };
        errors.at(member, format!("`{of}` has no field `{wanted}`"), help);
    }
    found
        .and_then(|index| fields.iter().nth(index))
        .map(|field| field.ty.clone())
}

fn emit(model: &Model) -> TokenStream {
    let Model {
        ident,
        generics,
        krate,
        cases,
    } = model;
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let mut delays = Vec::new();
    let mut fates = Vec::new();
    let mut names = Vec::new();
    for case in cases {
        let number = delays.len();
        let head = match &case.variant {
            Some(variant) => quote!(Self::#variant),
            None => quote!(Self),
        };
        let name = match &case.variant {
            Some(variant) => format!("{ident}::{variant}"),
            None => ident.to_string(),
        };
        let (pattern, fate) = match &case.fate {
            Fate::Retry => (
                quote!(..),
                quote! {
                    __private::Fate::Retry { after: ::core::option::Option::None }
                },
            ),
            Fate::RetryAfter(after) => {
                let after = emit::duration(*after);
                (
                    quote!(..),
                    quote! {
                        __private::Fate::Retry { after: ::core::option::Option::Some(#after) }
                    },
                )
            }
            Fate::RetryAfterField(after) => {
                let (member, ty) = &**after;
                let field = format_ident!("__after");
                delays.push(quote_spanned! {emit::place(ty)=>
                    impl __private::DelayField<#number> for __Delays { type Field = #ty; }
                });
                (
                    quote!(#member: #field, ..),
                    quote! {
                        __private::retry_after_field::<__Delays, #number>(#field)
                    },
                )
            }
            Fate::DeadLetter => (quote!(..), quote!(__private::Fate::DeadLetter)),
            Fate::Discard => (quote!(..), quote!(__private::Fate::Discard)),
            Fate::Pause(lasting) => {
                let lasting = emit::duration(*lasting);
                (
                    quote!(..),
                    quote!(__private::Fate::Pause { lasting: #lasting }),
                )
            }
        };
        fates.push(quote!(#head { #pattern } => #fate,));
        names.push(quote!(#head { .. } => #name,));
    }
    let holder = (!delays.is_empty()).then(|| {
        quote!(
            struct __Delays;
        )
    });
    let bound = quote_spanned! {emit::place(ident)=>
        impl #impl_generics __private::FailureType for #ident #type_generics #where_clause {}
    };
    // Nothing can be wrapped around the match of an enum without variants.
    let (fate, name) = if cases.is_empty() {
        (quote!(match *self {}), quote!(match *self {}))
    } else {
        (
            quote!(match self { #(#fates)* }),
            quote!(__private::Cow::Borrowed(match self { #(#names)* })),
        )
    };
    quote! {
        const _: () = {
            use #krate::__private;

            #bound
            #holder
            #(#delays)*

            impl #impl_generics __private::Failure for #ident #type_generics #where_clause {
                fn fate(&self) -> __private::Fate {
                    #fate
                }

                fn error_type(&self) -> __private::Cow<'static, ::core::primitive::str> {
                    #name
                }

                fn text(&self) -> __private::String {
                    __private::failure_text(self)
                }
            }
        };
    }
}

/// What lets other code go on after a mistake.
fn fallback(model: &Model) -> TokenStream {
    let Model {
        ident,
        generics,
        krate,
        ..
    } = model;
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    quote! {
        const _: () = {
            use #krate::__private;

            impl #impl_generics __private::Failure for #ident #type_generics #where_clause {
                fn fate(&self) -> __private::Fate {
                    __private::Fate::DeadLetter
                }

                fn error_type(&self) -> __private::Cow<'static, ::core::primitive::str> {
                    __private::Cow::Borrowed("")
                }

                fn text(&self) -> __private::String {
                    __private::String::new()
                }
            }
        };
    }
}
