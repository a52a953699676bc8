//! What `#[subscriber]` writes beside the function.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};

use crate::args::{Args, Value};
use crate::signature::{Argument, Function, PayloadForm};
use crate::{emit, path, service};

use super::{Model, Source, companion, options};

pub(super) fn emit(model: &Model) -> TokenStream {
    let Model {
        companion: name,
        conditions,
        krate,
        ..
    } = model;
    let beside = companion(conditions, &model.visibility, name);
    let anchor = service::anchor();
    let bounds = emit_bounds(model);
    let checks = emit_checks(model);
    let claim = emit_claim(model);
    let bind = emit_bind(model);
    let descriptor = emit_descriptor(model);
    quote! {
        #beside

        #(#conditions)*
        const _: () = {
            use #krate::__private;
            use crate::#anchor::ThisCrate;

            struct __Handler;
            #bounds
            #checks
            #claim
            #bind

            impl __private::Subscriber for #name {
                const DESCRIPTOR: &'static __private::SubscriberDescriptor = &#descriptor;
            }

            __private::inventory::submit! {
                __private::Registration::Subscriber(
                    <#name as __private::Subscriber>::DESCRIPTOR,
                )
            }
        };
    }
}

/// What lets other code go on after a mistake.
pub(super) fn fallback(args: &Args, function: &Function) -> TokenStream {
    let name = args.ident("companion").unwrap_or(&function.signature.ident);
    let conditions: Vec<_> = function.conditions().into_iter().cloned().collect();
    let beside = companion(&conditions, &function.visibility, name);
    let krate = path::runtime(args);
    quote! {
        #beside

        #(#conditions)*
        const _: () = {
            use #krate::__private;

            impl __private::Subscriber for #name {
                const DESCRIPTOR: &'static __private::SubscriberDescriptor =
                    __private::BROKEN_SUBSCRIBER;
            }
        };
    }
}

/// What the user's types must be, each said once and where the type stands.
fn emit_bounds(model: &Model) -> TokenStream {
    let mut bounds = TokenStream::new();
    let ty = &model.payload.ty;
    if model.payload.form != PayloadForm::Raw {
        let takes = match (&model.source, is_protobuf(model)) {
            (Source::Contract, _) => quote!(TakesPayload),
            (Source::Topic(_), false) => quote!(TakesForeign),
            (Source::Topic(_), true) => quote!(needs_feature_protobuf::TakesForeign),
        };
        bounds.extend(quote_spanned! {emit::place(ty)=>
            impl __private::#takes for __Handler { type Payload = #ty; }
        });
    }
    for (number, argument) in model.arguments.iter().enumerate() {
        bounds.extend(match argument {
            Argument::Extractor(ty) => quote_spanned! {emit::place(ty)=>
                impl __private::Takes<#number> for __Handler { type Argument = #ty; }
            },
            Argument::Header { ty, .. } | Argument::Segment { ty, .. } => {
                quote_spanned! {emit::place(ty)=>
                    impl __private::TakesText<#number> for __Handler { type Value = #ty; }
                }
            }
        });
    }
    let output = &model.output;
    let returns = if model.payload.batch {
        quote!(ReturnsBatch)
    } else {
        quote!(Returns)
    };
    bounds.extend(quote_spanned! {emit::place(output)=>
        impl __private::#returns for __Handler { type Output = #output; }
    });
    bounds
}

/// What can be said of the contract only when it is known.
fn emit_checks(model: &Model) -> TokenStream {
    let mut checks = TokenStream::new();
    match model.args.get("codec").map(|entry| &entry.value) {
        Some(Value::Word(codec))
            if !is_protobuf(model) || matches!(model.source, Source::Contract) =>
        {
            checks.extend(emit::needs_feature(codec));
        }
        _ => {}
    }
    if let Source::Topic(_) = model.source {
        return checks;
    }
    for reply in &model.replies {
        checks.extend(quote_spanned! {emit::place(reply)=>
            impl __private::Answers<#reply> for __Handler {
                type Asked = <__Handler as __private::TakesPayload>::Payload;
            }
        });
    }
    let ty = &model.payload.ty;
    let shown = quote!(#ty).to_string().replace(' ', "");
    if let Some(order) = model.args.word("ordered_by") {
        let text = format!(
            "`ordered_by = {order}` needs a key, and `{shown}` has none; name the field: \
             #[message(topic = \"..\", key = order_id)]"
        );
        let condition = quote!(__private::all_keyed(__private::contracts::<__Handler>()));
        checks.extend(emit::assertion(ty, &condition, &text));
    }
    for argument in &model.arguments {
        if let Argument::Segment {
            name,
            optional: false,
            ty: segment,
        } = argument
        {
            let text = format!("the topic of `{shown}` has no segment `{{{name}}}`");
            let contracts = quote!(__private::contracts::<__Handler>());
            let condition = quote!(__private::all_have_segment(#contracts, #name));
            checks.extend(emit::assertion(segment, &condition, &text));
        }
    }
    checks
}

/// Two subscribers that would take each other's messages do not compile.
fn emit_claim(model: &Model) -> TokenStream {
    let broker = model.args.text("broker").unwrap_or_default();
    let identity = quote!(<ThisCrate as __private::ThisCrate>::IDENTITY);
    let group = match model.args.get("group").map(|entry| &entry.value) {
        Some(Value::Text(group)) => quote!(#group),
        Some(_) => {
            // Every such subscriber has a group of its own.
            let own = format!("each instance of {}", subscriber_name(model));
            quote!(#own)
        }
        None => quote!(#identity.name),
    };
    let claim = match &model.source {
        Source::Contract => {
            quote!(__private::claim(#broker, #group, __private::contracts::<__Handler>()))
        }
        Source::Topic(topic) => quote!(__private::claim_topic(#broker, #group, #topic)),
    };
    quote!(impl __private::AlreadySubscribed<{ #claim }> for ThisCrate {})
}

fn emit_bind(model: &Model) -> TokenStream {
    let function = &model.function;
    let names: Vec<_> = (0..model.arguments.len())
        .map(|number| format_ident!("__argument{number}"))
        .collect();
    let mut prepare = TokenStream::new();
    let mut resolve = TokenStream::new();
    let mut share = TokenStream::new();
    let mut take = TokenStream::new();
    let (first, give_up) = if model.payload.batch {
        (
            quote!(__first),
            quote!(__private::for_each(__outcome, __incoming.len())),
        )
    } else {
        (quote!(__incoming), quote!(__outcome))
    };
    for (number, (argument, name)) in model.arguments.iter().zip(&names).enumerate() {
        let taken = match argument {
            Argument::Extractor(_) => {
                prepare.extend(quote! {
                    let #name = __private::argument::<__Handler, #number>(__bind);
                });
                resolve.extend(quote!(let #name = #name?;));
                share.extend(quote!(let #name = #name.share();));
                quote!(#name.take(&#first, &__scope))
            }
            Argument::Header {
                name,
                optional: false,
                ..
            } => {
                quote!(__private::take_header::<__Handler, #number>(&#first, #name))
            }
            Argument::Header {
                name,
                optional: true,
                ..
            } => {
                quote!(__private::take_optional_header::<__Handler, #number>(&#first, #name))
            }
            Argument::Segment {
                name,
                optional: false,
                ..
            } => {
                quote!(__private::take_segment::<__Handler, #number>(&#first, &__scope, #name))
            }
            Argument::Segment {
                name,
                optional: true,
                ..
            } => quote! {
                __private::take_optional_segment::<__Handler, #number>(&#first, &__scope, #name)
            },
        };
        take.extend(unwrap(name, &taken, &give_up));
    }
    let handler = if model.payload.batch {
        let read = emit_read(model, &quote!(__message));
        let body = quote_spanned! {emit::place(function)=>
            async move {
                let ::core::option::Option::Some(__first) = __private::first(&__incoming) else {
                    return __private::Vec::new();
                };
                #take
                __private::batch::<__Handler, _, _>(
                    __incoming,
                    &__scope,
                    |__message| #read,
                    |__batch| #function(__batch, #(#names),*),
                )
                .await
            }
        };
        quote_spanned! {emit::place(function)=>
            __private::Handler::batch(
                move |__incoming: __private::Vec<__private::Arc<__private::Incoming>>,
                      __scope: __private::Scope| { #share #body },
            )
        }
    } else {
        let read = emit_read(model, &quote!(__incoming));
        let payload = unwrap(&format_ident!("__payload"), &read, &give_up);
        let given = match model.payload.form {
            PayloadForm::Reference => quote!(&__payload),
            _ => quote!(__payload),
        };
        let body = quote_spanned! {emit::place(function)=>
            async move {
                #payload
                #take
                __private::finish::<__Handler>(#function(#given, #(#names),*).await, &__scope)
            }
        };
        quote_spanned! {emit::place(function)=>
            __private::Handler::one(
                move |__incoming: __private::Arc<__private::Incoming>,
                      __scope: __private::Scope| { #share #body },
            )
        }
    };
    quote! {
        fn __bind(__bind: &mut __private::Bind<'_>) -> ::core::option::Option<__private::Handler> {
            #prepare
            #resolve
            ::core::option::Option::Some(#handler)
        }
    }
}

fn unwrap(name: &proc_macro2::Ident, result: &TokenStream, give_up: &TokenStream) -> TokenStream {
    quote! {
        let #name = match #result {
            ::core::result::Result::Ok(__value) => __value,
            ::core::result::Result::Err(__outcome) => return #give_up,
        };
    }
}

/// Reads the payload of the message that `incoming` names.
fn emit_read(model: &Model, incoming: &TokenStream) -> TokenStream {
    let read = match (&model.source, is_protobuf(model)) {
        _ if model.payload.form == PayloadForm::Raw => {
            return quote!(__private::read_raw(&#incoming));
        }
        (Source::Contract, _) => quote!(__private::read),
        (Source::Topic(_), false) => quote!(__private::read_foreign),
        (Source::Topic(_), true) => quote!(__private::needs_feature_protobuf::read),
    };
    let read = quote!(#read::<__Handler>(&#incoming, &__scope));
    match model.payload.form {
        PayloadForm::Optional => quote!(__private::tombstone(&#incoming, || #read)),
        _ => read,
    }
}

fn emit_descriptor(model: &Model) -> TokenStream {
    let function = model.function.to_string();
    let function = function.trim_start_matches("r#");
    let options = options::emit(&model.args);
    let location = path::location();
    let source = match &model.source {
        Source::Contract => {
            quote!(__private::Source::Contracts(__private::contracts::<
                __Handler,
            >()))
        }
        Source::Topic(topic) => {
            let on_unknown = match model.args.word("on_unknown") {
                Some("skip") => quote!(Skip),
                _ => quote!(DeadLetter),
            };
            quote! {
                __private::Source::Topic {
                    topic: #topic,
                    on_unknown: __private::OnUnknown::#on_unknown,
                }
            }
        }
    };
    let publishes = if model.payload.batch {
        quote!(.batch().publishes(__private::batch_publishes::<__Handler>))
    } else {
        quote! {
            .publishes(__private::publishes::<__Handler>)
            .replies(__private::replies::<__Handler>)
        }
    };
    let segments: Vec<_> = model
        .arguments
        .iter()
        .filter_map(|argument| match argument {
            Argument::Segment { name, .. } => Some(name),
            _ => None,
        })
        .collect();
    let segments = (!segments.is_empty()).then(|| quote!(.segments(&[#(#segments),*])));
    quote! {
        __private::SubscriberDescriptor::new(
            #function,
            ::core::module_path!(),
            <ThisCrate as __private::ThisCrate>::IDENTITY,
            #source,
            #options,
            __bind,
            #location,
        )
        #publishes
        #segments
    }
}

fn is_protobuf(model: &Model) -> bool {
    model.args.word("codec") == Some("protobuf")
}

fn subscriber_name(model: &Model) -> String {
    let function = model.function.to_string();
    model.args.text("name").unwrap_or(function)
}
