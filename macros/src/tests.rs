//! All macros together: half-typed uses, and what the expansions look like.

use std::fmt::Write as _;
use std::path::PathBuf;

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};

use crate::{failure, message, messages, service, service_client, subscriber};

/// Every beginning of `tokens`; one that ends inside of brackets has them closed, as editors do.
fn prefixes(tokens: TokenStream) -> Vec<TokenStream> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut all = Vec::new();
    for count in 0..=tokens.len() {
        let before = || tokens[..count].iter().cloned();
        all.push(before().collect());
        if let Some(TokenTree::Group(group)) = tokens.get(count) {
            for inside in prefixes(group.stream()) {
                let closed = TokenTree::Group(Group::new(group.delimiter(), inside));
                all.push(before().chain([closed]).collect());
            }
        }
    }
    all
}

#[test]
fn a_half_typed_function_keeps_its_name() {
    let attribute = quote!(
        name = "charge",
        group = each_instance,
        retry(attempts = 6, first = "250ms"),
        topic = "orders.{region}",
        on_unknown = skip,
        rabbitmq(arguments("x-a" = 1)),
        crate = ::a::b
    );
    let item = quote! {
        #[doc = "Charges."]
        #[cfg(all())]
        pub(crate) async fn charge(
            order: &OrderPlaced, bank: State<Bank>, #[header("x-tenant")] tenant: Option<Tenant>,
            #[segment] region: String
        ) -> Result<Charged, ChargeError> {
            let receipt = bank.charge(&order.card).await?;
            Ok(Charged { receipt })
        }
    };
    let halves = prefixes(item.clone());
    assert!(halves.len() > 70);
    for half in halves {
        let written = half.to_string();
        let output = subscriber::expand(attribute.clone(), &half).to_string();
        if written.contains("fn charge") {
            assert!(output.contains("fn charge"), "{written}\n{output}");
        }
    }
    for half in prefixes(attribute) {
        let output = subscriber::expand(half, &item).to_string();
        assert!(output.contains("fn charge"), "{output}");
        assert!(output.contains("struct charge"), "{output}");
        assert!(!output.contains("# [header"), "{output}");
    }
}

#[test]
fn a_half_typed_client_keeps_its_name() {
    let attribute = quote!(
        service = "orders",
        base = "/api",
        retry(attempts = 6, first = "250ms"),
        error = a::B,
        crate = ::a::b
    );
    let item = quote! {
        #[doc = "Orders."]
        pub(crate) trait Orders {
            #[get("/orders/{id}")]
            #[timeout("2s")]
            async fn order(&self, id: &str, #[query] page: Option<u8>) -> Result<Order, CallError>;
        }
    };
    for half in prefixes(item.clone()) {
        let written = half.to_string();
        let output = service_client::expand(attribute.clone(), &half).to_string();
        if written.contains("trait Orders") {
            assert!(output.contains("trait Orders"), "{written}\n{output}");
        }
        assert!(!output.contains("# [get"), "{written}\n{output}");
    }
    for half in prefixes(attribute) {
        let output = service_client::expand(half, &item).to_string();
        assert!(output.contains("trait Orders"), "{output}");
        assert!(output.contains("struct OrdersClient"), "{output}");
    }
}

#[test]
fn a_half_typed_type_panics_no_derive() {
    let message = quote! {
        #[message(topic = "orders.{region}", key = id, version = 2, from(1 = Old), codec = json, crate = ::a)]
        pub struct Order { pub id: u64, pub region: String }
    };
    let messages = quote! {
        #[messages(crate = ::a)]
        pub enum Orders { Placed(Placed), Moved(Moved) }
    };
    let failure = quote! {
        pub enum Broken<T> {
            #[fate(retry(after = wait))] Busy { wait: Duration },
            #[fate(pause = "30s")] Pause(T),
        }
    };
    type Derive = fn(TokenStream) -> TokenStream;
    let derives: [(TokenStream, Derive, &str); 3] = [
        (message, message::expand, "for Order"),
        (messages, messages::expand, "for Orders"),
        (failure, failure::expand, "for Broken"),
    ];
    for (whole, expand, wanted) in derives {
        for half in prefixes(whole.clone()) {
            expand(half);
        }
        let output = expand(whole).to_string();
        assert!(output.contains(wanted), "{output}");
        assert!(!output.contains("compile_error"), "{output}");
    }
    for half in prefixes(quote!("billing", crate = ::a)) {
        let output = service::expand(half).to_string();
        assert!(output.contains("fn service"), "{output}");
    }
}

/// Expands what a file of cases holds.
fn expand(source: &str) -> TokenStream {
    let tokens: TokenStream = source.parse().expect("the case is tokens");
    let mut rest = tokens.into_iter();
    match (rest.next(), rest.next()) {
        (Some(TokenTree::Ident(_)), Some(_)) => match rest.next() {
            Some(TokenTree::Group(group)) => service::expand(group.stream()),
            other => panic!("`service!` is not called: {other:?}"),
        },
        (_, Some(TokenTree::Group(attribute))) => {
            let mut inside = attribute.stream().into_iter();
            let name = inside
                .next()
                .map(|name| name.to_string())
                .unwrap_or_default();
            let arguments = match inside.next() {
                Some(TokenTree::Group(arguments)) => arguments.stream(),
                other => panic!("the attribute has no arguments: {other:?}"),
            };
            let item: TokenStream = rest.collect();
            match (name.as_str(), arguments.to_string().as_str()) {
                ("service_client", _) => service_client::expand(arguments, &item),
                ("subscriber", _) => subscriber::expand(arguments, &item),
                ("derive", "Message") => message::expand(item),
                ("derive", "Messages") => messages::expand(item),
                ("derive", "Failure") => failure::expand(item),
                other => panic!("{other:?} is none of our macros"),
            }
        }
        other => panic!("not a case: {other:?}"),
    }
}

fn pretty(tokens: TokenStream) -> String {
    match syn::parse2(tokens.clone()) {
        Ok(file) => prettyplease::unparse(&file),
        // A half-typed body is no file.
        Err(_) => format!("{}\n", tokens.into_token_stream()),
    }
}

/// Compares with a recorded text, or records it when `INTERLINE_RECORD` is set.
fn compare(path: &PathBuf, found: &str) {
    if std::env::var_os("INTERLINE_RECORD").is_some() {
        std::fs::write(path, found).expect("the record can be written");
        return;
    }
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        recorded == found,
        "{} is not what was recorded; set INTERLINE_RECORD=1 to record:\n{found}",
        path.display()
    );
}

#[test]
fn expansions_are_as_recorded_and_so_are_their_sizes() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/expand");
    let mut cases: Vec<_> = folder
        .read_dir()
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry of the folder of cases").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| !path.to_string_lossy().ends_with(".expanded.rs"))
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 8);
    let mut sizes = String::from("# Bytes of each expansion, the user's own item included.\n");
    for case in cases {
        let source = std::fs::read_to_string(&case).expect("the case can be read");
        let found = pretty(expand(&source));
        let name = case
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        writeln!(sizes, "{name} {}", found.len()).expect("a text takes more");
        compare(&folder.join(format!("{name}.expanded.rs")), &found);
    }
    compare(&folder.join("sizes.txt"), &sizes);
}

/// Of each macro, the options that its documentation leaves out.
#[test]
fn every_option_is_documented() {
    let source = include_str!("lib.rs");
    let documentation = |function: &str| {
        let end = source.find(&format!("pub fn {function}(")).unwrap();
        let start = source[..end].rfind("\n\n").unwrap();
        &source[start..end]
    };
    for (function, keys) in [
        ("derive_message", message::KEYS),
        ("subscriber", subscriber::options::KEYS),
        ("service_client", service_client::KEYS),
    ] {
        let text = documentation(function);
        let lacking: Vec<_> = keys
            .iter()
            .map(|key| key.name)
            .filter(|name| {
                let mut spans = text.split('`').skip(1).step_by(2);
                !spans.any(|span| {
                    span.split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        == Some(name)
                })
            })
            .collect();
        assert!(
            lacking.is_empty(),
            "{function} does not document {lacking:?}"
        );
    }
}
