use proc_macro2::TokenStream;
use quote::quote;

use super::*;

fn texts(attribute: TokenStream, item: &TokenStream) -> Vec<String> {
    let mut errors = Errors::default();
    let args = Args::parse(attribute, KEYS, "#[service_client]", &mut errors);
    expand_item(&args, item, &mut errors);
    errors.texts()
}

fn methods(inside: &TokenStream) -> Vec<String> {
    let item = quote!(pub trait Orders { #inside });
    let texts = texts(quote!(service = "orders"), &item);
    let first = texts
        .into_iter()
        .map(|text| text.lines().next().unwrap_or_default().to_owned());
    first.collect()
}

#[test]
fn a_whole_client_has_no_mistake() {
    let item = quote! {
        pub trait Orders {
            #[get("/orders/{id}")]
            async fn order(&self, id: OrderId) -> Result<Option<Order>, CallError>;
            #[post("/orders")] #[idempotent] #[retry(attempts = 5, max = "1s", hedge = "80ms")] #[timeout("3s")]
            async fn place(&self, #[body] order: &NewOrder, #[query("dry-run")] dry: bool,
                #[header("x-tenant")] tenant: Option<&str>) -> Result<Response<Order>, MyError>;
            #[head("/orders/{id}")]
            async fn exists(&self, id: &str) -> std::result::Result<Response<()>, CallError<P>>;
        }
    };
    let attribute = quote!(
        service = "orders",
        base = "/api/v1",
        timeout = "2s",
        attempt_timeout = "1s",
        retry(attempts = 3),
        error = my::Problem,
        client = Caller,
        crate = ::a::b
    );
    assert_eq!(texts(attribute, &item), [""; 0]);
}

#[test]
fn arguments_need_a_place_and_values_an_argument() {
    let result = quote!(Result<Order, CallError>);
    let cases = [
        (
            quote!(#[get("/o/{id}")] async fn f(&self) -> #result;),
            "`{id}` in the path has no argument",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, x: u8) -> #result;),
            "`x` has no place in the request",
        ),
        (
            quote!(#[get("/o/{order}")] async fn f(&self, ordr: u8) -> #result;),
            "`ordr` has no place in the request",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, #[body] x: u8) -> #result;),
            "a GET request has no body",
        ),
        (
            quote!(#[post("/o")] async fn f(&self, #[body] x: u8, #[body] y: u8) -> #result;),
            "a request has one body",
        ),
        (
            quote!(#[get("/o/{x}")] async fn f(&self, #[query] x: u8) -> #result;),
            "`x` stands in the path already",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, #[query] #[body] x: u8) -> #result;),
            "an argument goes to one place",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, #[query("")] x: u8) -> #result;),
            "which key?",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, #[header("a b")] x: u8) -> #result;),
            "which header?",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, #[query] (a, b): (u8, u8)) -> #result;),
            "an argument of a client has a name",
        ),
        (
            quote!(#[get("/o")] async fn f(&self, #[query] x: impl Serialize) -> #result;),
            "a method of a client must name the types of its arguments",
        ),
    ];
    for (method, wanted) in cases {
        assert_eq!(methods(&method), [wanted], "{method}");
    }
}

#[test]
fn methods_are_requests_and_nothing_else() {
    let result = quote!(Result<Order, CallError>);
    let cases = [
        (
            quote!(async fn f(&self) -> #result;),
            "which request does `f` make?",
        ),
        (quote!(#[get] async fn f(&self) -> #result;), "which path?"),
        (
            quote!(#[get("/a")] #[put("/a")] async fn f(&self) -> #result;),
            "a method makes one request",
        ),
        (
            quote!(#[get("/a")] fn f(&self) -> #result;),
            "a method of a client must be an `async fn`",
        ),
        (
            quote!(#[get("/a")] async fn f() -> #result;),
            "a method of a client takes `&self`",
        ),
        (
            quote!(#[get("/a")] async fn f(self) -> #result;),
            "a client is used by `&self`",
        ),
        (
            quote!(#[get("/a")] async fn f<T>(&self) -> #result;),
            "a method of a client cannot be generic",
        ),
        (
            quote!(#[get("/a")] async fn f(&self) -> #result {}),
            "a method of a client has no body: it makes a request",
        ),
        (
            quote!(
                #[get("/a")]
                async fn f(&self);
            ),
            "a call can fail, so a client returns a `Result`",
        ),
        (
            quote!(
                #[get("/a")]
                async fn f(&self) -> Result<Order>;
            ),
            "a call can fail, so a client returns a `Result` with its error (an alias is not seen)",
        ),
        (
            quote!(#[head("/a")] async fn f(&self) -> #result;),
            "the answer to a HEAD request has no body",
        ),
        (
            quote!(#[post("/a")] #[retry(attempts = 2)] async fn f(&self) -> #result;),
            "a POST may not be repeated: it would be done twice",
        ),
        (
            quote!(#[get("/a")] #[retry] async fn f(&self) -> #result;),
            "`#[retry]` needs its options in parentheses",
        ),
        (
            quote!(#[get("/a")] #[timeout] async fn f(&self) -> #result;),
            "how long?",
        ),
        (
            quote!(#[post("/a")] #[idempotent(x)] async fn f(&self) -> #result;),
            "`#[idempotent]` has no options",
        ),
        (
            quote!(
                const N: u8;
            ),
            "a client has methods and nothing else",
        ),
    ];
    for (method, wanted) in cases {
        assert_eq!(methods(&method), [wanted], "{method}");
    }
    let same = quote! {
        #[get("/o/{a}")] async fn one(&self, a: u8) -> #result;
        #[get("/o/{b}")] async fn two(&self, b: u8) -> #result;
        #[put("/o/{b}")] async fn three(&self, b: u8) -> #result;
    };
    assert_eq!(methods(&same), ["`one` makes the same request"]);
}

#[test]
fn lifetimes_that_are_left_out_get_a_name() {
    let cases = [
        ("& str", "& 'c str"),
        ("& 'static str", "& 'static str"),
        ("Option < & str >", "Option < & 'c str >"),
        ("& Filter < '_ >", "& 'c Filter < 'c >"),
        ("& [& str]", "& 'c [& 'c str]"),
        ("u64", "u64"),
    ];
    for (written, wanted) in cases {
        let ty: Type = syn::parse_str(written).expect(written);
        let wanted: TokenStream = wanted.parse().expect("tokens");
        assert_eq!(with_lifetime(&ty, "'c").to_string(), wanted.to_string());
    }
}

#[test]
fn methods_may_have_conditions_and_arguments_may_not() {
    let inside = quote! {
        #[cfg(unix)] #[get("/a")] async fn one(&self) -> Result<(), CallError>;
        #[cfg(not(unix))] #[get("/a")] async fn one(&self) -> Result<u32, CallError>;
    };
    assert_eq!(methods(&inside), [""; 0]);
    let inside = quote! {
        #[cfg(unix)] #[get("/a")] async fn one(&self) -> Result<(), CallError>;
        #[cfg(unix)] #[get("/a")] async fn two(&self) -> Result<(), CallError>;
    };
    assert_eq!(methods(&inside), ["`one` makes the same request"]);
    let inside = quote! {
        #[get("/a")] async fn one(&self, #[query] #[cfg(unix)] page: u32) -> Result<(), CallError>;
    };
    assert_eq!(
        methods(&inside),
        ["a request has all arguments of its method"]
    );
}

#[test]
fn a_method_that_is_not_there_takes_no_place_in_the_record() {
    let methods = [
        quote!(
            #[get("/a")]
            async fn a(&self) -> Result<(), CallError>;
        ),
        quote!(
            #[cfg(x)]
            #[cfg(y)]
            #[get("/b")]
            async fn b(&self) -> Result<(), CallError>;
        ),
        quote!(
            #[get("/c")]
            async fn c(&self) -> Result<(), CallError>;
        ),
        quote!(
            #[get("/d")]
            async fn d(&self) -> Result<(), CallError>;
        ),
    ];
    let item = quote!(pub trait Orders { #(#methods)* });
    let output = expand(quote!(service = "orders"), &item).to_string();
    for place in [
        "call (0usize)",
        "call (1usize)",
        "call (1usize + :: core :: cfg ! (all (x , y)) as usize)",
        "call (2usize + :: core :: cfg ! (all (x , y)) as usize)",
    ] {
        assert_eq!(output.matches(place).count(), 1, "{place} in {output}");
    }
}

#[test]
fn what_has_no_effect_beside_the_rest_is_a_mistake() {
    let cases = [
        (
            quote!(timeout = "2s", attempt_timeout = "2s"),
            quote!(),
            "the whole call may take 2s, so this limits no attempt",
        ),
        (
            quote!(timeout = "1500ms"),
            quote!(#[attempt_timeout("2s")]),
            "the whole call may take 1500ms, so this limits no attempt",
        ),
        (
            quote!(retry(first = "1s", max = "500ms")),
            quote!(),
            "no wait is longer than `max`, which is 500ms, so the first is not either",
        ),
        (
            quote!(retry(max = "500ms")),
            quote!(#[retry(first = "1s")]),
            "no wait is longer than `max`, which is 500ms, so the first is not either",
        ),
        (
            quote!(retry(attempts = 1)),
            quote!(#[retry(hedge_percentile = 90)]),
            "`hedge_percentile` says how a call is repeated, and it has one attempt",
        ),
        (
            quote!(),
            quote!(#[retry(attempts = 1, jitter = none, max = "1s")]),
            "`max` says how a call is repeated, and it has one attempt",
        ),
        (
            quote!(timeout = "2s"),
            quote!(#[retry(hedge = "2s")]),
            "the call is over after 2s, so no second request is ever sent",
        ),
        (
            quote!(timeout = "2s", attempt_timeout = "1s"),
            quote!(#[retry(hedge = "1s")]),
            "the attempt is over after 1s, so no second request is ever sent",
        ),
    ];
    for (of_trait, of_method, wanted) in cases {
        let item = quote! {
            pub trait Orders {
                #[get("/a")] #of_method async fn a(&self) -> Result<(), CallError>;
            }
        };
        let found = texts(quote!(service = "orders", #of_trait), &item);
        let found: Vec<_> = found
            .iter()
            .filter_map(|text| text.lines().next())
            .collect();
        assert_eq!(found, [wanted], "{of_trait} {of_method}");
    }
}

#[test]
fn one_method_may_differ_from_the_others() {
    let item = quote! {
        pub trait Orders {
            #[get("/a")] #[timeout("500ms")] async fn a(&self) -> Result<(), CallError>;
            #[get("/b")] #[retry(attempts = 1)] async fn b(&self) -> Result<(), CallError>;
            #[get("/c")] #[retry(max = "10ms")] async fn c(&self) -> Result<(), CallError>;
            #[get("/d")] #[timeout("9s")] #[attempt_timeout("8s")]
            async fn d(&self) -> Result<(), CallError>;
        }
    };
    let attribute = quote!(
        service = "orders",
        timeout = "2s",
        attempt_timeout = "1s",
        retry(hedge = "80ms", first = "100ms", max = "1s", jitter = equal)
    );
    assert_eq!(texts(attribute, &item), [""; 0]);
}

#[test]
fn another_service_stands_in_before_a_value_or_a_function() {
    let inside = quote! {
        #[get("/a")] #[fallback(service = "copy")] async fn a(&self) -> Result<(), CallError>;
        #[get("/b")] #[fallback(service = "copy",)] async fn b(&self) -> Result<(), CallError>;
        #[get("/c")] #[fallback(service = "copy", value = 7)]
        async fn c(&self) -> Result<u8, CallError>;
        #[get("/d/{id}")] #[fallback(service = "copy", none::at_all(id))]
        async fn d(&self, id: u8) -> Result<u8, CallError>;
        #[get("/e")] #[fallback(service)] async fn e(&self) -> Result<(), CallError>;
    };
    assert_eq!(methods(&inside), [""; 0]);
    let item = quote!(pub trait Orders { #inside });
    let output = expand(quote!(service = "orders"), &item).to_string();
    assert_eq!(output.matches(". falls_back_to (\"copy\")").count(), 4);
    assert_eq!(output.matches("Came :: Nothing").count(), 3);
    for wrong in [
        quote!(service = "copy", service = "other"),
        quote!(service = copy),
        quote!(value = 7, service = "copy"),
        quote!(service = "copy" value = 7),
    ] {
        let method = quote!(
            #[get("/a")]
            #[fallback(#wrong)]
            async fn a(&self) -> Result<u8, CallError>;
        );
        let wanted = "this is no function, no value and no other service";
        assert_eq!(methods(&method), [wanted], "{wrong}");
    }
}
