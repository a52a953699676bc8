//! `#[derive(Message)]`: the contract of a type that travels.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Data, DeriveInput, Fields, Member, Type};

use crate::args::{Args, Key, Kind, Value};
use crate::diagnostics::{Errors, suggestion};
use crate::{emit, path};

pub(crate) const KEYS: &[Key] = &[
    Key::new("topic", Kind::TopicOrPath),
    Key::new("key", Kind::Member),
    Key::new("id", Kind::Member),
    Key::new("version", Kind::Number(1, u32::MAX as u64)),
    Key::new("name", Kind::Name),
    Key::new("codec", Kind::NameOrWord(emit::CODECS)),
    Key::new("ttl", Kind::Duration),
    Key::new("priority", Kind::Number(0, 255)),
    Key::new("subscribers", Kind::Word(&["optional"])),
    Key::new("from", Kind::Pairs),
    Key::new("reply", Kind::Path),
    Key::new("crate", Kind::Path),
];

const TOPIC_HELP: &str = "add it: #[message(topic = \"orders.placed\")]";

/// What the attribute and the type say together.
struct Model {
    ident: Ident,
    krate: TokenStream,
    name: String,
    topic: Topic,
    /// The fields that the contract names: first the key, then the id, then those of the topic.
    key: Option<Named>,
    id: Option<Named>,
    version: u32,
    codec: Option<Codec>,
    ttl: Option<Duration>,
    priority: Option<u8>,
    subscribers_optional: bool,
    older: Vec<(u32, Type)>,
    reply: Option<syn::Path>,
}

enum Topic {
    Text(String, Vec<(String, Named)>),
    Constant(syn::Path),
}

/// A field that the contract names.
#[derive(Clone)]
struct Named {
    member: Member,
    ty: Type,
}

#[derive(Debug)]
enum Codec {
    BuiltIn(&'static str),
    Other(String),
}

pub(crate) fn expand(tokens: TokenStream) -> TokenStream {
    let input = match syn::parse2::<DeriveInput>(tokens) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    let args = emit::options(&input.attrs, "message", KEYS, &mut errors);
    let model = read(&input, &args, &mut errors);
    match model {
        Some(model) if errors.is_empty() => emit(&model),
        _ => {
            let mut output = fallback(&input, &path::runtime(&args));
            output.extend(errors.into_tokens());
            output
        }
    }
}

fn read(input: &DeriveInput, args: &Args, errors: &mut Errors) -> Option<Model> {
    if !input.generics.params.is_empty() {
        errors.at(
            &input.generics,
            "a message cannot be generic: its contract is one topic and one type on the wire",
            "write one type for each message",
        );
    }
    let fields = TypeFields::of(input, errors);
    let topic = read_topic(input, args, &fields, errors);
    let key = fields.named(args, "key", errors);
    let id = fields.named(args, "id", errors);
    let version = args.number("version").map_or(1, |version| version as u32);
    Some(Model {
        ident: input.ident.clone(),
        krate: path::runtime(args),
        name: args.text("name").unwrap_or_else(|| input.ident.to_string()),
        topic: topic?,
        key,
        id,
        version,
        codec: args.get("codec").and_then(|entry| match &entry.value {
            Value::Word(word) => Some(Codec::BuiltIn(word)),
            Value::Text(text) => Some(Codec::Other(text.clone())),
            _ => None,
        }),
        ttl: args.duration("ttl"),
        priority: args.number("priority").map(|priority| priority as u8),
        subscribers_optional: args.word("subscribers").is_some(),
        older: read_older(args, version, errors),
        reply: args.path("reply").cloned(),
    })
}

fn read_topic(
    input: &DeriveInput,
    args: &Args,
    fields: &TypeFields,
    errors: &mut Errors,
) -> Option<Topic> {
    let Some(entry) = args.get("topic") else {
        if !args.has("topic") {
            let what = format!("the message `{}` needs a topic", input.ident);
            errors.at(&input.ident, what, TOPIC_HELP);
        }
        return None;
    };
    match &entry.value {
        Value::Path(path) => Some(Topic::Constant(path.clone())),
        Value::Topic(text, placeholders) => {
            let mut named = Vec::new();
            for placeholder in placeholders {
                match fields.find(placeholder) {
                    Some(field) => named.push((placeholder.clone(), field.clone())),
                    None => errors.at(
                        &entry.tokens,
                        format!(
                            "`{{{placeholder}}}` in the topic is not a field of `{}`",
                            input.ident
                        ),
                        fields.help(placeholder),
                    ),
                }
            }
            Some(Topic::Text(text.clone(), named))
        }
        _ => None,
    }
}

fn read_older(args: &Args, version: u32, errors: &mut Errors) -> Vec<(u32, Type)> {
    let mut older: Vec<(u32, Type)> = Vec::new();
    let help = "write the version and its type, for example `version = 2, from(1 = OrderPlacedV1)`";
    for pair in args.pairs("from") {
        let number = match &pair.key {
            syn::Lit::Int(literal) => literal.base10_parse::<u32>().ok(),
            _ => None,
        };
        let Some(number) = number.filter(|number| *number > 0) else {
            errors.at(&pair.key, "this is not a version", help);
            continue;
        };
        let Ok(ty) = syn::parse2::<Type>(pair.value.clone()) else {
            errors.at(&pair.value, "this is not a type", help);
            continue;
        };
        if number >= version {
            errors.at(
                &pair.key,
                format!("version {number} is not older than this one, which is {version}"),
                help,
            );
        } else if older.iter().any(|(known, _)| *known == number) {
            errors.at(
                &pair.key,
                format!("version {number} is written twice"),
                "write it once",
            );
        } else {
            older.push((number, ty));
        }
    }
    older
}

/// The fields of a type, by name or number.
struct TypeFields(Vec<(String, Named)>);

impl TypeFields {
    fn of(input: &DeriveInput, errors: &mut Errors) -> Self {
        let fields = match &input.data {
            Data::Struct(data) => &data.fields,
            Data::Enum(_) => &Fields::Unit,
            Data::Union(data) => {
                errors.at(
                    data.union_token,
                    "a union cannot be a message",
                    "write a struct, or an enum",
                );
                &Fields::Unit
            }
        };
        let named = fields.iter().enumerate().map(|(index, field)| {
            let member = match &field.ident {
                Some(ident) => Member::Named(ident.clone()),
                None => Member::from(index),
            };
            let text = match &field.ident {
                Some(ident) => ident.to_string().trim_start_matches("r#").to_owned(),
                None => index.to_string(),
            };
            let ty = field.ty.clone();
            (text, Named { member, ty })
        });
        Self(named.collect())
    }

    fn find(&self, name: &str) -> Option<&Named> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, field)| field)
    }

    fn named(&self, args: &Args, key: &str, errors: &mut Errors) -> Option<Named> {
        let member = args.member(key)?;
        let name = match member {
            Member::Named(ident) => ident.to_string().trim_start_matches("r#").to_owned(),
            Member::Unnamed(index) => index.index.to_string(),
        };
        let found = self.find(&name);
        if found.is_none() {
            let what = format!("there is no field `{name}` to be the {key}");
            errors.at(member, what, self.help(&name));
        }
        found.cloned()
    }

    fn help(&self, wanted: &str) -> String {
        let names = || self.0.iter().map(|(name, _)| name.as_str());
        match suggestion(wanted, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.0.is_empty() => "the type has no fields".to_owned(),
            None => format!("its fields are {}", crate::diagnostics::list(names())),
        }
    }
}

fn emit(model: &Model) -> TokenStream {
    let Model {
        ident,
        krate,
        key,
        id,
        ..
    } = model;
    let topic_fields: &[(String, Named)] = match &model.topic {
        Topic::Text(_, fields) => fields,
        Topic::Constant(_) => &[],
    };
    let named = key
        .iter()
        .chain(id)
        .chain(topic_fields.iter().map(|(_, field)| field));
    let bounds = named.enumerate().map(|(number, field)| {
        let ty = &field.ty;
        quote_spanned! {emit::place(ty)=>
            impl __private::ShownField<#number> for __Contract { type Field = #ty; }
        }
    });
    let older = model.older.iter().map(|(version, ty)| {
        quote_spanned! {emit::place(ty)=>
            impl __private::Older<#version> for __Contract {
                type Newer = #ident;
                type Message = #ty;
            }
        }
    });
    let upcasts = model.older.iter().map(|(version, _)| {
        quote! {
            if let ::core::option::Option::Some(older) =
                __private::upcast::<__Contract, #version>(encoded)
            {
                return older;
            }
        }
    });
    let holder =
        (key.is_some() || id.is_some() || !topic_fields.is_empty() || !model.older.is_empty())
            .then(|| {
                quote!(
                    struct __Contract;
                )
            });
    let key_method = key.as_ref().map(|field| text_method("key", field, 0));
    let id_method = id
        .as_ref()
        .map(|field| text_method("id", field, usize::from(key.is_some())));
    let first = usize::from(key.is_some()) + usize::from(id.is_some());
    let topic_method = emit_topic_method(topic_fields, first);
    let keyed = key
        .is_some()
        .then(|| quote!(impl __private::Keyed for #ident {}));
    let reply = model.reply.as_ref().map(|reply| {
        quote_spanned! {emit::place(reply)=>
            impl __private::Request for #ident { type Reply = #reply; }
            impl __private::AnsweredBy<#reply> for #ident {}
        }
    });
    let form = match &model.codec {
        Some(Codec::BuiltIn("protobuf")) => quote!(needs_feature_protobuf),
        _ => quote!(serde_form),
    };
    let feature = match &model.codec {
        Some(Codec::BuiltIn(word)) if *word != "protobuf" => Some(emit::needs_feature(word)),
        _ => None,
    };
    let topic_check = emit_topic_check(model);
    let contract = emit_contract(model);
    let bound = quote_spanned!(emit::place(ident)=> impl __form::Form for #ident {});

    quote! {
        const _: () = {
            use #krate::__private;
            use #krate::__private::#form as __form;

            #bound
            #holder
            #(#bounds)*
            #(#older)*
            #topic_check
            #feature

            impl __private::Message for #ident {
                const CONTRACT: &'static __private::Contract = &#contract;

                #topic_method
                #key_method
                #id_method

                fn encode(
                    &self,
                    encoder: __private::Encoder<'_>,
                ) -> ::core::result::Result<__private::Bytes, __private::CodecError> {
                    __form::encode(self, encoder)
                }

                fn decode(
                    encoded: __private::Encoded<'_>,
                ) -> ::core::result::Result<Self, __private::CodecError> {
                    #(#upcasts)*
                    __form::decode(encoded)
                }
            }

            #keyed
            #reply
        };
    }
}

fn text_method(name: &str, field: &Named, number: usize) -> TokenStream {
    let method = Ident::new(name, proc_macro2::Span::call_site());
    let member = &field.member;
    quote! {
        fn #method(&self) -> ::core::option::Option<__private::String> {
            __private::text::<__Contract, #number>(&self.#member)
        }
    }
}

fn emit_topic_method(fields: &[(String, Named)], first: usize) -> Option<TokenStream> {
    if fields.is_empty() {
        return None;
    }
    let values = fields.iter().enumerate().map(|(index, (name, field))| {
        let number = first + index;
        let member = &field.member;
        quote!((#name, __private::shown::<__Contract, #number>(&self.#member)))
    });
    Some(quote! {
        fn topic(
            &self,
        ) -> ::core::result::Result<
            __private::Cow<'static, ::core::primitive::str>,
            __private::TopicError,
        > {
            __private::render(Self::CONTRACT.topic, &[#(#values),*])
        }
    })
}

fn emit_topic_check(model: &Model) -> Option<TokenStream> {
    let Topic::Constant(path) = &model.topic else {
        return None;
    };
    let text = format!(
        "the topic of message `{}` is not valid: a topic is segments of letters, digits, `-` and `_` \
         with single dots between them, without placeholders",
        model.ident
    );
    Some(emit::assertion(
        path,
        &quote!(__private::is_topic(#path)),
        &text,
    ))
}

fn emit_contract(model: &Model) -> TokenStream {
    let name = &model.name;
    let location = path::location();
    let topic = match &model.topic {
        Topic::Text(text, _) => text.to_token_stream(),
        Topic::Constant(path) => path.to_token_stream(),
    };
    let mut contract = quote!(__private::Contract::new(#name, #topic, #location));
    if model.version > 1 {
        let version = model.version;
        contract.extend(quote!(.version(#version)));
    }
    if model.key.is_some() {
        contract.extend(quote!(.keyed()));
    }
    if let Some(codec) = &model.codec {
        let name = match codec {
            Codec::BuiltIn(word) => *word,
            Codec::Other(name) => name,
        };
        contract.extend(quote!(.codec(#name)));
    }
    if let Some(ttl) = model.ttl {
        let ttl = emit::duration(ttl);
        contract.extend(quote!(.ttl(#ttl)));
    }
    if let Some(priority) = model.priority {
        contract.extend(quote!(.priority(#priority)));
    }
    if model.subscribers_optional {
        contract.extend(quote!(.subscribers_optional()));
    }
    contract
}

/// What lets other code go on after a mistake.
fn fallback(input: &DeriveInput, krate: &TokenStream) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let ident = &input.ident;
    quote! {
        const _: () = {
            use #krate::__private;

            impl __private::Message for #ident {
                const CONTRACT: &'static __private::Contract = __private::BROKEN_CONTRACT;

                fn encode(
                    &self,
                    _: __private::Encoder<'_>,
                ) -> ::core::result::Result<__private::Bytes, __private::CodecError> {
                    ::core::result::Result::Err(__private::broken_codec())
                }

                fn decode(
                    _: __private::Encoded<'_>,
                ) -> ::core::result::Result<Self, __private::CodecError> {
                    ::core::result::Result::Err(__private::broken_codec())
                }
            }

            impl __private::Keyed for #ident {}
        };
    }
}
