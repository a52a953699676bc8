//! What `#[service_client]` writes: the trait as others implement it, and the client beside it.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{FnArg, ItemTrait, Pat, ReturnType, Signature, TraitItem};

use crate::{emit, path};

use super::limits::{Given, Limits};
use super::method::{Argument, Format, Method, Place};
use super::template::Piece;
use super::{Model, Names, conditions, is_ours, with_lifetime};

/// The trait with futures that can be sent between threads, and without our attributes.
pub(super) fn emit_trait(item: &ItemTrait) -> TokenStream {
    let mut item = item.clone();
    item.attrs.retain(|attribute| !is_ours(attribute));
    for member in &mut item.items {
        let TraitItem::Fn(function) = member else {
            continue;
        };
        function.attrs.retain(|attribute| !is_ours(attribute));
        clean(&mut function.sig);
        if function.sig.asyncness.is_some() && function.default.is_none() {
            let output = output(&function.sig);
            function.sig.asyncness = None;
            function.sig.output = syn::parse_quote! {
                -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
            };
        }
    }
    quote!(#item)
}

fn clean(signature: &mut Signature) {
    for input in &mut signature.inputs {
        if let FnArg::Typed(argument) = input {
            argument.attrs.retain(|attribute| !is_ours(attribute));
            if let Pat::Ident(pattern) = &mut *argument.pat {
                pattern.mutability = None;
            }
        }
    }
}

fn output(signature: &Signature) -> TokenStream {
    match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    }
}

pub(super) fn emit(model: &Model<'_>) -> TokenStream {
    let Model {
        item,
        names,
        krate,
        service,
        ..
    } = model;
    let Names {
        client,
        object,
        http,
    } = names;
    let name = &item.ident;
    let shown = name.to_string();
    let conditions: Vec<_> = conditions(&item.attrs).collect();
    let beside = beside(item, names, krate, &emit_object(model));
    let calls = model.methods.iter().enumerate();
    let calls = calls.map(|(place, method)| {
        let number = number(&model.methods[..place]);
        emit_call(model, &number, method)
    });
    let mirrored = model.methods.iter().map(|method| {
        let signature = object_signature(http, method);
        let Method {
            ident,
            conditions,
            arguments,
            ..
        } = method;
        let given = arguments.iter().map(|argument| &argument.name);
        quote! {
            #(#conditions)*
            #signature {
                ::std::boxed::Box::pin(<__I as #name>::#ident(self, #(#given),*))
            }
        }
    });
    let records = model
        .methods
        .iter()
        .map(|method| emit_record(model, method));
    let settings = emit_settings(http, &model.limits);
    let settings = settings.map(|settings| quote!(.settings(#settings)));
    let location = path::location();
    quote! {
        #beside

        #(#conditions)*
        const _: () = {
            use #krate::__private;

            impl #client {
                /// A client that calls this implementation in place of the service.
                #[must_use]
                pub fn from_impl<__I>(implementation: __I) -> Self
                where
                    __I: #name + ::core::marker::Send + ::core::marker::Sync + 'static,
                {
                    Self(#http::Via::Local(__private::Arc::new(implementation)))
                }

                /// The same client with these options, above its own, for calls over the wire.
                #[must_use]
                pub fn with(&self, options: #http::CallOptions) -> Self {
                    Self(self.0.with(options))
                }
            }

            impl #http::ServiceClient for #client {
                const DESCRIPTOR: &'static #http::ClientDescriptor =
                    &#http::ClientDescriptor::new::<Self>(
                        #shown,
                        #service,
                        &[#(#records),*],
                        #location,
                    )#settings;

                fn from_wire(wire: #http::Wire) -> Self {
                    Self(#http::Via::Wire(wire))
                }
            }

            impl #name for #client {
                #(#calls)*
            }

            impl<__I> #object for __I
            where
                __I: #name + ::core::marker::Send + ::core::marker::Sync,
            {
                #(#mirrored)*
            }

            __private::inventory::submit! {
                __private::Registration::Client(
                    <#client as #http::ServiceClient>::DESCRIPTOR,
                )
            }
        };
    }
}

/// What lets other code go on after a mistake.
pub(super) fn fallback(item: &ItemTrait, names: &Names, krate: &TokenStream) -> TokenStream {
    let Names { client, http, .. } = names;
    let conditions: Vec<_> = conditions(&item.attrs).collect();
    let beside = beside(item, names, krate, &TokenStream::new());
    quote! {
        #beside

        #(#conditions)*
        const _: () = {
            impl #http::ServiceClient for #client {
                const DESCRIPTOR: &'static #http::ClientDescriptor = &#http::broken::<Self>();

                fn from_wire(wire: #http::Wire) -> Self {
                    Self(#http::Via::Wire(wire))
                }
            }
        };
    }
}

/// The client's type, with the object it may hold and the name of the runtime's module.
fn beside(
    item: &ItemTrait,
    names: &Names,
    krate: &TokenStream,
    object_methods: &TokenStream,
) -> TokenStream {
    let Names {
        client,
        object,
        http,
    } = names;
    let visibility = &item.vis;
    let conditions: Vec<_> = conditions(&item.attrs).collect();
    let text = format!("The client of [`{}`].", item.ident);
    quote! {
        #(#conditions)*
        #[doc(hidden)]
        #[allow(non_snake_case, unused_imports, reason = "one name for generated code")]
        use #krate::__private::needs_feature_http as #http;

        #(#conditions)*
        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "named after the trait")]
        trait #object: ::core::marker::Send + ::core::marker::Sync {
            #object_methods
        }

        #(#conditions)*
        #[doc = #text]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #client(#http::Via<dyn #object>);
    }
}

/// The methods of the trait that can be an object. Its implementation stands beside it.
fn emit_object(model: &Model<'_>) -> TokenStream {
    let http = &model.names.http;
    let methods = model.methods.iter().map(|method| {
        let signature = object_signature(http, method);
        let conditions = &method.conditions;
        quote!(#(#conditions)* #signature;)
    });
    quote!(#(#methods)*)
}

fn object_signature(http: &Ident, method: &Method) -> TokenStream {
    let ident = mirrored_name(method);
    let output = &method.output;
    let arguments = method.arguments.iter().map(|argument| {
        let name = &argument.name;
        let ty = with_lifetime(&argument.ty, "'__call");
        quote!(#name: #ty)
    });
    quote! {
        fn #ident<'__call>(&'__call self, #(#arguments),*) -> #http::BoxFuture<'__call, #output>
    }
}

/// Not the method's own name: where both traits are in sight, a call would be ambiguous.
fn mirrored_name(method: &Method) -> Ident {
    format_ident!("__{}", method.ident)
}

/// The place in the record of the method that follows these: how many of them there are.
fn number(before: &[Method]) -> TokenStream {
    let sure = before.iter().filter(|method| method.conditions.is_empty());
    let sure = sure.count();
    let unsure = before.iter().filter(|method| !method.conditions.is_empty());
    let unsure = unsure.map(|method| {
        let all = method.conditions.iter().map(|condition| {
            let list = condition.meta.require_list();
            list.map(|list| list.tokens.clone()).unwrap_or_default()
        });
        quote!(+ ::core::cfg!(all(#(#all),*)) as usize)
    });
    quote!(#sure #(#unsure)*)
}

/// One method of the client.
fn emit_call(model: &Model<'_>, number: &TokenStream, method: &Method) -> TokenStream {
    let Names { object, http, .. } = &model.names;
    let Method {
        ident,
        conditions,
        output,
        error,
        ..
    } = method;
    let arguments = method
        .arguments
        .iter()
        .map(|Argument { name, ty, .. }| quote!(#name: #ty));
    let given: Vec<_> = method
        .arguments
        .iter()
        .map(|argument| &argument.name)
        .collect();
    let mirrored = mirrored_name(method);
    let mut steps = TokenStream::new();
    let base = &model.base;
    let mut first = true;
    for piece in &method.pieces {
        match piece {
            Piece::Literal(text) => {
                let text = if first {
                    format!("{base}{text}")
                } else {
                    text.clone()
                };
                steps.extend(quote!(let __call = __call.literal(#text);));
            }
            Piece::Value(name) => {
                let found = method
                    .arguments
                    .iter()
                    .find(|argument| argument.name.to_string().trim_start_matches("r#") == name);
                let Some(Argument {
                    name: value, ty, ..
                }) = found
                else {
                    continue;
                };
                let value = quote_spanned!(emit::place(ty)=> &#value);
                steps.extend(quote!(let __call = #http::path(__call, #name, #value);));
            }
        }
        first = false;
    }
    for Argument { name, ty, place } in &method.arguments {
        let value = quote_spanned!(emit::place(ty)=> &#name);
        steps.extend(match place {
            Place::Path => continue,
            Place::Body(Format::Bytes) => quote!(let __call = #http::bytes(__call, #value);),
            Place::Body(Format::Form) => quote!(let __call = #http::form(__call, #value);),
            Place::Body(Format::Json) => quote!(let __call = #http::json(__call, #value);),
            Place::Body(Format::Msgpack) => {
                quote!(let __call = __private::needs_feature_msgpack::body(__call, #value);)
            }
            Place::Body(Format::Stream) => quote!(let __call = #http::stream(__call, #name);),
            Place::Query(key) => quote!(let __call = #http::query(__call, #key, #value);),
            Place::Header {
                name,
                optional: false,
            } => quote!(let __call = #http::header(__call, #name, #value);),
            Place::Header {
                name,
                optional: true,
            } => quote!(let __call = #http::optional_header(__call, #name, #value);),
        });
    }
    let reader = method.shape.reader(http);
    let problem = match model.args.path("error") {
        Some(path) => quote!(#path),
        None => quote!(#http::Problem),
    };
    // Every token of it stands where the type does, or a fault of the type is told a second time, at
    // the attribute.
    let at_type = |tokens| emit::placed(tokens, emit::place(error));
    let sent = quote!(#http::send::<#reader, #problem>(__call).await);
    let stand_in = method.fallback.as_ref();
    let stand_in = stand_in.and_then(|fallback| fallback.emit(&method.ok));
    let end = match stand_in {
        None => {
            let failed =
                at_type(quote!(map_err(|__error| #http::failed::<#problem, #error>(__error))));
            quote!(#sent.#failed)
        }
        Some(stand_in) => {
            let came = at_type(quote!(#http::came::<_, #problem, #error>));
            quote! {
                match #came(__wire, #number, #sent) {
                    #http::Came::Result(__result) => __result,
                    #http::Came::Nothing(__error) => #stand_in,
                }
            }
        }
    };
    quote! {
        #(#conditions)*
        async fn #ident(&self, #(#arguments),*) -> #output {
            let __wire = match &self.0 {
                #http::Via::Wire(__wire) => __wire,
                #http::Via::Local(__local) => {
                    return #object::#mirrored(&**__local, #(#given),*).await;
                }
            };
            let __call = __wire.call(#number);
            #steps
            #end
        }
    }
}

fn emit_record(model: &Model<'_>, method: &Method) -> TokenStream {
    let http = &model.names.http;
    let name = method.ident.to_string();
    let name = name.trim_start_matches("r#");
    let mut verb = method.verb.to_owned();
    verb[..1].make_ascii_uppercase();
    let verb = format_ident!("{verb}");
    let path = format!("{}{}", model.base, method.template);
    let keyed = method.keyed.then(|| quote!(.keyed()));
    let reconnects = method.reconnects.then(|| quote!(.reconnects()));
    let elsewhere = method.fallback.as_ref();
    let elsewhere = elsewhere.and_then(|fallback| fallback.service.as_ref());
    let elsewhere = elsewhere.map(|service| quote!(.falls_back_to(#service)));
    let cache = method.cache.as_ref().map(|cache| {
        let keys = ["ttl", "stale_if_error", "stale_while_revalidate"];
        let said = keys.into_iter().filter_map(|key| {
            let duration = emit::duration(cache.duration(key)?);
            let key = format_ident!("{key}");
            Some(quote!(.#key(#duration)))
        });
        quote!(.cache(#http::CacheSettings::UNSET #(#said)*))
    });
    let settings = emit_settings(http, &method.limits);
    let settings = settings.map(|settings| quote!(.settings(#settings)));
    let conditions = &method.conditions;
    quote! {
        #(#conditions)*
        #http::MethodDescriptor::new(#name, #http::Verb::#verb, #path)#keyed #reconnects #elsewhere #cache #settings
    }
}

/// Limits and retries as the runtime's `CallSettings`; `None` if nothing is said.
fn emit_settings(http: &Ident, limits: &Limits) -> Option<TokenStream> {
    let mut said = TokenStream::new();
    let mut add = |key: &str, value: TokenStream| {
        let key = format_ident!("{key}");
        said.extend(quote!(.#key(#value)));
    };
    let given = |given: &Option<Given>| given.as_ref().map(|given| given.duration);
    let durations = [
        ("timeout", given(&limits.timeout)),
        ("attempt_timeout", given(&limits.attempt_timeout)),
    ];
    let retry = &limits.retry;
    let waits = ["first", "max", "hedge"].map(|key| (key, retry.duration(key)));
    for (key, duration) in durations.into_iter().chain(waits) {
        if let Some(duration) = duration {
            add(key, emit::duration(duration));
        }
    }
    if let Some(word) = retry.word("jitter") {
        let mut name = word.to_owned();
        name[..1].make_ascii_uppercase();
        let name = format_ident!("{name}");
        add("jitter", quote!(#http::Jitter::#name));
    }
    if let Some(attempts) = retry.number("attempts") {
        // At most 20, by the table of keys.
        let attempts = attempts as u32;
        add("attempts", quote!(#attempts));
    }
    if let Some(percentile) = retry.number("hedge_percentile") {
        // At most 99, by the same table.
        let percentile = percentile as u8;
        add("hedge_percentile", quote!(#percentile));
    }
    (!said.is_empty()).then(|| quote!(#http::CallSettings::UNSET #said))
}
