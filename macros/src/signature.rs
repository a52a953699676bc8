//! A function as it was written: its body stays tokens, so that a half-typed one survives.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{
    Attribute, FnArg, GenericArgument, LitStr, Pat, PathArguments, ReturnType, Signature, Type,
    Visibility,
};

use crate::diagnostics::Errors;
use crate::literals;

/// The attributes of arguments, which only we understand.
const HELPERS: &[&str] = &["header", "segment"];

/// A function whose body is not looked at.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let function = Self {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
        };
        input.parse::<TokenStream>()?;
        Ok(function)
    }
}

/// The first argument of a handler.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) form: PayloadForm,
    /// Whether it comes in batches; then `form` is that of each item.
    pub(crate) batch: bool,
    /// What is decoded: `T` of `&T`, `Option<T>` or `Batch<T>`.
    pub(crate) ty: Type,
}

/// How a payload is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadForm {
    Owned,
    Reference,
    Optional,
    Raw,
}

/// A further argument of a handler.
#[derive(Clone)]
pub(crate) enum Argument {
    Extractor(Type),
    Header {
        name: String,
        optional: bool,
        ty: Type,
    },
    Segment {
        name: String,
        optional: bool,
        ty: Type,
    },
}

/// The arguments of a handler.
pub(crate) struct Arguments {
    pub(crate) payload: Option<Payload>,
    pub(crate) rest: Vec<Argument>,
}

impl Function {
    /// Refuses what no handler can be.
    pub(crate) fn check(&self, errors: &mut Errors) {
        let signature = &self.signature;
        if signature.asyncness.is_none() {
            errors.at(
                signature.fn_token,
                "a subscriber must be an `async fn`",
                "write `async` before `fn`",
            );
        }
        if let Some(token) = &signature.constness {
            errors.at(token, "a subscriber cannot be `const`", "leave it out");
        }
        if !matches!(signature.safety, syn::Safety::Default) {
            errors.at(
                &signature.safety,
                "a subscriber cannot be `unsafe`: the runtime calls it",
                "leave it out, and use an `unsafe` block inside",
            );
        }
        if let Some(abi) = &signature.abi {
            errors.at(abi, "a subscriber cannot be `extern`", "leave it out");
        }
        if let Some(variadic) = &signature.variadic {
            errors.at(
                variadic,
                "a subscriber cannot take a variable number of arguments",
                "",
            );
        }
        if !signature.generics.params.is_empty() {
            errors.at(
                &signature.generics,
                "a subscriber cannot be generic: the runtime calls it, and knows no types",
                "write one subscriber for each type; lifetimes of references can be left out",
            );
        }
        if let ReturnType::Type(_, ty) = &signature.output
            && let Type::ImplTrait(_) = **ty
        {
            errors.at(
                ty,
                "a subscriber must name the type that it returns",
                "write for example `Result<(), MyError>`",
            );
        }
    }

    /// Whether it has a `self`, so that it stands in an `impl`, where no type can stand beside it.
    pub(crate) fn is_method(&self, errors: &mut Errors) -> bool {
        let Some(receiver) = self.signature.receiver() else {
            return false;
        };
        errors.at(
            receiver,
            "a subscriber has no `self`",
            "write a function outside of the `impl`, and take what is shared as `State<..>`",
        );
        true
    }

    /// Sorts the arguments; the payload comes first.
    pub(crate) fn arguments(&self, errors: &mut Errors) -> Arguments {
        let mut arguments = Arguments {
            payload: None,
            rest: Vec::new(),
        };
        for (index, input) in self.signature.inputs.iter().enumerate() {
            let FnArg::Typed(argument) = input else {
                continue;
            };
            refuse_impl_trait(&argument.ty, errors);
            let mut helpers = argument.attrs.iter().filter_map(Helper::of);
            let helper = helpers.next();
            if let Some(second) = helpers.next() {
                errors.at(
                    second.attribute,
                    "an argument is one thing",
                    "keep one of its attributes",
                );
            }
            match helper {
                Some(helper) => {
                    arguments
                        .rest
                        .extend(helper.argument(&argument.pat, &argument.ty, errors));
                    if index == 0 {
                        missing_payload(&argument.ty, errors);
                    }
                }
                None if index == 0 => arguments.payload = payload(&argument.ty, errors),
                None => {
                    refuse_misplaced(&argument.ty, errors);
                    arguments
                        .rest
                        .push(Argument::Extractor((*argument.ty).clone()));
                }
            }
        }
        if self.signature.inputs.is_empty() {
            missing_payload(&self.signature.ident, errors);
        }
        arguments
    }

    /// The type that it returns.
    pub(crate) fn output(&self) -> TokenStream {
        match &self.signature.output {
            ReturnType::Default => quote_spanned!(self.signature.ident.span()=> ()),
            ReturnType::Type(_, ty) => ty.to_token_stream(),
        }
    }

    /// What the replies in the returned type hold.
    pub(crate) fn replies(&self) -> Vec<Type> {
        match &self.signature.output {
            ReturnType::Default => Vec::new(),
            ReturnType::Type(_, ty) => replies(ty).into_iter().cloned().collect(),
        }
    }

    /// The conditions under which it exists.
    pub(crate) fn conditions(&self) -> Vec<&Attribute> {
        let attributes = self.attributes.iter();
        attributes
            .filter(|attribute| attribute.path().is_ident("cfg"))
            .collect()
    }
}

fn missing_payload(at: impl ToTokens, errors: &mut Errors) {
    errors.at(
        at,
        "a subscriber takes its message as the first argument",
        "write for example `order: OrderPlaced` first",
    );
}

fn refuse_impl_trait(ty: &Type, errors: &mut Errors) {
    if let Type::ImplTrait(_) = ty {
        errors.at(
            ty,
            "a subscriber must name the types of its arguments",
            "write the type in place of `impl ..`",
        );
    }
}

/// The forms of a payload, in the place of another argument.
fn refuse_misplaced(ty: &Type, errors: &mut Errors) {
    if let Type::Reference(_) = ty {
        errors.at(
            ty,
            "only the message can be taken by reference",
            "write the type without `&`; the message comes first",
        );
    }
    for form in ["Batch", "Raw"] {
        if is_called(ty, form) {
            errors.at(
                ty,
                format!("`{form}` is a form of the message, which comes first"),
                "move it to the front, or leave it out",
            );
        }
    }
}

fn payload(ty: &Type, errors: &mut Errors) -> Option<Payload> {
    if let Some(item) = argument_of(ty, "Batch") {
        let item = plain(item);
        if item.form == PayloadForm::Reference {
            errors.at(
                ty,
                "the messages of a batch are owned",
                "write `Batch<T>` without `&`",
            );
            return None;
        }
        return Some(Payload {
            batch: true,
            ..item
        });
    }
    if let Type::Reference(reference) = ty {
        if let Some(token) = &reference.mutability {
            errors.at(
                token,
                "a message is taken by value or by `&`, not by `&mut`",
                "write the type without `&mut`; the argument itself can be `mut`",
            );
            return None;
        }
        let forms = ["Batch", "Raw", "Option"];
        if let Some(form) = forms
            .into_iter()
            .find(|form| is_called(&reference.elem, form))
        {
            errors.at(
                ty,
                format!("`{form}` is taken by value"),
                "leave out the `&`",
            );
            return None;
        }
    }
    Some(plain(ty))
}

fn plain(ty: &Type) -> Payload {
    let (form, inner) = if is_called(ty, "Raw") {
        (PayloadForm::Raw, ty)
    } else if let Some(inner) = argument_of(ty, "Option") {
        (PayloadForm::Optional, inner)
    } else if let Type::Reference(reference) = ty {
        (PayloadForm::Reference, &*reference.elem)
    } else {
        (PayloadForm::Owned, ty)
    };
    Payload {
        form,
        batch: false,
        ty: inner.clone(),
    }
}

/// What the replies in a returned type hold: `R` of each `Reply<R>`, however deep. An alias is not seen.
fn replies(ty: &Type) -> Vec<&Type> {
    if let Some(reply) = argument_of(ty, "Reply") {
        return vec![reply];
    }
    match ty {
        Type::Group(group) => replies(&group.elem),
        Type::Paren(paren) => replies(&paren.elem),
        Type::Tuple(tuple) => tuple.elems.iter().flat_map(replies).collect(),
        Type::Path(path) => {
            let last = path.path.segments.last();
            let Some(PathArguments::AngleBracketed(arguments)) =
                last.map(|segment| &segment.arguments)
            else {
                return Vec::new();
            };
            let types = arguments.args.iter().filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            });
            types.flat_map(replies).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the last segment of the type's path is `name`. An alias is not seen.
pub(crate) fn is_called(ty: &Type, name: &str) -> bool {
    match ty {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|last| last.ident == name),
        Type::Paren(inner) => is_called(&inner.elem, name),
        Type::Group(inner) => is_called(&inner.elem, name),
        _ => false,
    }
}

/// The `T` of `name<T>`.
fn argument_of<'t>(ty: &'t Type, name: &str) -> Option<&'t Type> {
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
    match arguments.args.first()? {
        GenericArgument::Type(ty) if arguments.args.len() == 1 => Some(ty),
        _ => None,
    }
}

/// `#[header("..")]` or `#[segment]` on an argument.
struct Helper<'a> {
    attribute: &'a Attribute,
    is_header: bool,
}

impl<'a> Helper<'a> {
    fn of(attribute: &'a Attribute) -> Option<Self> {
        let is_header = attribute.path().is_ident("header");
        (is_header || attribute.path().is_ident("segment")).then_some(Self {
            attribute,
            is_header,
        })
    }

    fn argument(&self, pattern: &Pat, ty: &Type, errors: &mut Errors) -> Option<Argument> {
        let (optional, ty) = match argument_of(ty, "Option") {
            Some(inner) => (true, inner.clone()),
            None => (false, ty.clone()),
        };
        if let Type::Reference(_) = ty {
            errors.at(
                &ty,
                "a header or segment is taken by value",
                "write `String` in place of `&str`",
            );
            return None;
        }
        if self.is_header {
            let name = self.header_name(errors)?;
            Some(Argument::Header { name, optional, ty })
        } else {
            let name = self.segment_name(pattern, errors)?;
            Some(Argument::Segment { name, optional, ty })
        }
    }

    fn header_name(&self, errors: &mut Errors) -> Option<String> {
        let name = self.attribute.parse_args::<LitStr>().ok();
        let name = name.filter(|name| {
            let text = name.value();
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if name.is_none() {
            errors.at(
                self.attribute,
                "which header?",
                "write its name, for example #[header(\"x-tenant\")]",
            );
        }
        name.map(|name| name.value())
    }

    fn segment_name(&self, pattern: &Pat, errors: &mut Errors) -> Option<String> {
        if let syn::Meta::Path(_) = self.attribute.meta {
            if let Pat::Ident(pattern) = pattern {
                return Some(
                    pattern
                        .ident
                        .to_string()
                        .trim_start_matches("r#")
                        .to_owned(),
                );
            }
        } else if let Ok(name) = self.attribute.parse_args::<LitStr>()
            && literals::name(&name.value()).is_ok()
        {
            return Some(name.value());
        }
        errors.at(
            self.attribute,
            "which segment of the topic?",
            "write the name between its braces, for example #[segment(\"region\")]",
        );
        None
    }
}

/// The item without the attributes that only we understand. Works on anything, also on what does not
/// parse, so that the item never disappears.
pub(crate) fn cleaned(item: TokenStream) -> TokenStream {
    without(item, &["subscriber"])
        .into_iter()
        .map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                without_in(&group, HELPERS)
            }
            other => other,
        })
        .collect()
}

fn without_in(group: &Group, names: &[&str]) -> TokenTree {
    let before = group.stream();
    let count = before.clone().into_iter().count();
    let after = without(before, names);
    if after.clone().into_iter().count() == count {
        return TokenTree::Group(group.clone());
    }
    let mut cleaned = Group::new(group.delimiter(), after);
    cleaned.set_span(group.span());
    TokenTree::Group(cleaned)
}

/// The tokens without attributes whose path ends in one of `names`.
pub(crate) fn without(tokens: TokenStream, names: &[&str]) -> TokenStream {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        let is_ours = match tokens.peek() {
            Some(TokenTree::Group(group)) if is_hash => attribute_is(group, names),
            _ => false,
        };
        if is_ours {
            tokens.next();
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}

fn attribute_is(group: &Group, names: &[&str]) -> bool {
    let mut last: Option<Ident> = None;
    for token in group.stream() {
        match token {
            TokenTree::Ident(ident) => last = Some(ident),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            _ => break,
        }
    }
    group.delimiter() == Delimiter::Bracket
        && last.is_some_and(|last| names.iter().any(|name| last == name))
}

/// What an item is, by its first keyword, and where that stands.
pub(crate) fn kind_of(item: &TokenStream) -> Option<Ident> {
    const KINDS: &[&str] = &[
        "fn",
        "struct",
        "enum",
        "union",
        "trait",
        "impl",
        "mod",
        "static",
        "type",
        "use",
        "macro_rules",
        "const",
    ];
    let idents = item.clone().into_iter().filter_map(|token| match token {
        TokenTree::Ident(ident) => Some(ident),
        _ => None,
    });
    let known: Vec<_> = idents
        .filter(|ident| KINDS.iter().any(|kind| ident == kind))
        .collect();
    // `const fn` is a function, and `unsafe impl Trait for fn()` is not.
    let first = known.first()?;
    if first == "const" && known.get(1).is_some_and(|second| second == "fn") {
        return known.get(1).cloned();
    }
    Some(first.clone())
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn read(tokens: TokenStream) -> (Arguments, Vec<String>) {
        let function: Function = syn::parse2(tokens).expect("a function");
        let mut errors = Errors::default();
        function.check(&mut errors);
        let arguments = function.arguments(&mut errors);
        (arguments, errors.texts())
    }

    fn form(ty: &TokenStream) -> Option<(PayloadForm, bool, String)> {
        let (arguments, _) = read(quote!(async fn f(m: #ty) {}));
        let payload = arguments.payload?;
        Some((
            payload.form,
            payload.batch,
            payload.ty.to_token_stream().to_string(),
        ))
    }

    #[test]
    fn payloads_are_told_apart_by_their_tokens() {
        let t = || "T".to_owned();
        assert_eq!(form(&quote!(T)), Some((PayloadForm::Owned, false, t())));
        assert_eq!(
            form(&quote!(&T)),
            Some((PayloadForm::Reference, false, t()))
        );
        assert_eq!(
            form(&quote!(Option<T>)),
            Some((PayloadForm::Optional, false, t()))
        );
        assert_eq!(
            form(&quote!(std::option::Option<T>)),
            Some((PayloadForm::Optional, false, t()))
        );
        assert_eq!(
            form(&quote!(Batch<T>)),
            Some((PayloadForm::Owned, true, t()))
        );
        assert_eq!(
            form(&quote!(interline::Batch<Option<T>>)),
            Some((PayloadForm::Optional, true, t()))
        );
        assert_eq!(
            form(&quote!(Raw)),
            Some((PayloadForm::Raw, false, "Raw".to_owned()))
        );
        assert_eq!(
            form(&quote!(Batch<Raw>)),
            Some((PayloadForm::Raw, true, "Raw".to_owned()))
        );
        assert_eq!(form(&quote!(&mut T)), None);
        assert_eq!(form(&quote!(&Raw)), None);
        assert_eq!(form(&quote!(Batch<&T>)), None);
    }

    #[test]
    fn arguments_are_sorted() {
        let (arguments, errors) = read(quote! {
            async fn f(Order { id, .. }: Order, s: State<S>, #[header("x-t")] t: Option<Tenant>,
                #[segment] region: String, #[segment("zone")] z: u8) {}
        });
        assert_eq!(errors, [""; 0]);
        let kinds: Vec<_> = arguments
            .rest
            .iter()
            .map(|argument| match argument {
                Argument::Extractor(_) => "extractor".to_owned(),
                Argument::Header { name, optional, .. } => format!("header {name} {optional}"),
                Argument::Segment { name, optional, .. } => format!("segment {name} {optional}"),
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "extractor",
                "header x-t true",
                "segment region false",
                "segment zone false"
            ]
        );
    }

    #[test]
    fn helper_attributes_go_and_everything_else_stays() {
        let item = quote! {
            #[doc = "x"] #[interline::subscriber(name = "b")] #[inline]
            pub(crate) async fn f(a: A, #[header("x")] b: B, #[cfg(x)] #[segment] c: C) { #[header] let }
        };
        let wanted = quote! {
            #[doc = "x"] #[inline]
            pub(crate) async fn f(a: A, b: B, #[cfg(x)] c: C) { #[header] let }
        };
        assert_eq!(cleaned(item).to_string(), wanted.to_string());
    }

    #[test]
    fn items_are_told_apart() {
        let kind = |item: TokenStream| kind_of(&item).map(|kind| kind.to_string());
        assert_eq!(
            kind(quote!(
                pub const fn f() {}
            ))
            .as_deref(),
            Some("fn")
        );
        assert_eq!(
            kind(quote!(
                #[a]
                pub struct S;
            ))
            .as_deref(),
            Some("struct")
        );
        assert_eq!(
            kind(quote!(
                unsafe impl T for fn() {}
            ))
            .as_deref(),
            Some("impl")
        );
        assert_eq!(kind(quote!(x)), None);
    }
}
