//! What a method returns, and how an answer is read for it.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{GenericArgument, PathArguments, ReturnType, TraitItemFn, Type};

use crate::diagnostics::Errors;
use crate::signature::is_called;

/// How the answer is read.
pub(in super::super) enum Shape {
    Bytes,
    Events,
    Json(Box<Type>),
    Nothing,
    Optional(Box<Self>),
    Response(Box<Self>),
    Stream,
}

/// How the answer is read; what is returned, and the two types that it is made of.
pub(super) type Returned = Option<(Shape, Type, [Type; 2])>;

pub(super) fn returned(item: &TraitItemFn, verb: Option<&str>, errors: &mut Errors) -> Returned {
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
    if is_borrowed(ok.to_token_stream()) {
        errors.at(
            ok,
            "an answer is read into what owns it",
            "write a type without references, for example `String` in place of `&str`",
        );
    }
    if verb == Some("head") && !shape.is_without_body() {
        errors.at(
            ok,
            "the answer to a HEAD request has no body",
            "write `Result<Response<()>, ..>` for its headers, or `Result<(), ..>`",
        );
    }
    Some((shape, (**output).clone(), [ok.clone(), error.clone()]))
}

/// Whether the type holds references. Of lifetimes only `'static` may stand in it.
fn is_borrowed(tokens: TokenStream) -> bool {
    let mut rest = tokens.into_iter();
    while let Some(token) = rest.next() {
        let borrowed = match token {
            TokenTree::Punct(punct) if punct.as_char() == '&' => true,
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                !matches!(rest.next(), Some(TokenTree::Ident(name)) if name == "static")
            }
            TokenTree::Group(group) => is_borrowed(group.stream()),
            _ => false,
        };
        if borrowed {
            return true;
        }
    }
    false
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

    pub(super) fn is_streamed(&self) -> bool {
        match self {
            Self::Events | Self::Stream => true,
            Self::Optional(inner) | Self::Response(inner) => inner.is_streamed(),
            Self::Bytes | Self::Json(_) | Self::Nothing => false,
        }
    }

    pub(super) fn is_events(&self) -> bool {
        match self {
            Self::Events => true,
            Self::Optional(inner) | Self::Response(inner) => inner.is_events(),
            Self::Bytes | Self::Json(_) | Self::Nothing | Self::Stream => false,
        }
    }

    /// The runtime's reader, in the module `http`.
    pub(in super::super) fn reader(&self, http: &Ident) -> TokenStream {
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
