//! Where arguments go, and what becomes of answers.

use interline::http::{CallErrorKind, Sent};
use interline::prelude::*;

use crate::server::{Reply, Server};
use crate::shop::{
    Filter, ITEM, Item, Shop, ShopProblem, ShopWithCodes, StrictShop, client, item, till,
};

#[tokio::test]
async fn every_argument_goes_to_its_place() {
    let server = Server::start(|_| Reply::json("[]")).await;
    let shop = client(&[server.url()], "").await;
    let filter = Filter {
        text: "red & blue",
        page: None,
        tag: vec!["new", "a/b"],
    };
    let found = shop.search(&filter, 20, "acme", Some(true)).await.unwrap();
    assert_eq!((found.status.as_u16(), found.attempts), (200, 1));
    assert_eq!(&*found.endpoint, server.url());
    shop.search(&filter, 20, "acme", None).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].method, "GET");
    assert_eq!(
        seen[0].target,
        "/api/items?text=red%20%26%20blue&tag=new&tag=a%2Fb&max-results=20"
    );
    assert_eq!(seen[0].header("x-tenant"), "acme");
    assert_eq!(seen[0].header("x-trial"), "true");
    assert!(!seen[1].headers.contains_key("x-trial"));
    assert_eq!(seen[0].header("x-attempt"), "1");
    assert!(seen[0].header("user-agent").starts_with("till interline/"));
    assert_eq!(seen[0].header("traceparent").len(), 55);
    let left: u64 = seen[0].header("x-timeout-ms").parse().unwrap();
    assert!((4_000..=5_000).contains(&left), "{left}");
}

#[tokio::test]
async fn bodies_are_json_and_paths_are_encoded() {
    let server = Server::start(|_| Reply::status(204)).await;
    let shop = client(&[server.url()], "").await;
    shop.add(&item()).await.unwrap();
    shop.set("a/b c?d=é", item()).await.unwrap();
    shop.change("7", 9).await.unwrap();
    shop.remove("..7").await.unwrap().unwrap();
    let seen = server.seen();
    let lines: Vec<_> = seen
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.target))
        .collect();
    assert_eq!(
        lines,
        [
            "POST /api/items",
            "PUT /api/items/a%2Fb%20c%3Fd%3D%C3%A9",
            "PATCH /api/items/7",
            "DELETE /api/items/..7",
        ]
    );
    assert_eq!(seen[0].header("content-type"), "application/json");
    assert_eq!(seen[0].body, r#"{"id":"7","left":3}"#);
    assert_eq!(seen[2].body, "9");
    assert!(!seen[3].headers.contains_key("content-type"));
    assert!(
        seen.iter()
            .all(|seen| !seen.headers.contains_key("idempotency-key"))
    );
}

#[tokio::test]
async fn answers_are_read_as_the_method_says() {
    let server = Server::start(|seen| match &*seen.target {
        "/api/items/7" if seen.method == "GET" => Reply::json(ITEM),
        "/api/items/1/maybe" => Reply::json(ITEM),
        "/api/items/0/maybe" => Reply::status(418),
        "/api/items/2/picture.png" => Reply::status(200).body(vec![0, 159, 146, 150]),
        "/api/items/7" => Reply::status(200).header("x-left", "3"),
        _ => Reply::status(404),
    })
    .await;
    let shop = client(&[server.url()], "").await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    assert_eq!(shop.maybe(1).await.unwrap(), Some(item()));
    assert_eq!(shop.maybe(2).await.unwrap(), None);
    assert_eq!(shop.remove("8").await.unwrap(), None);
    assert_eq!(
        shop.picture(2, "png").await.unwrap(),
        [0, 159, 146, 150][..]
    );
    let head = shop.exists("7").await.unwrap();
    assert_eq!(head.headers["x-left"], "3");
    let missing = shop.item("9").await.unwrap_err();
    assert_eq!(missing.kind(), CallErrorKind::Status);
    assert_eq!(missing.status().unwrap().as_u16(), 404);
    assert!(!missing.is_retryable());
    assert_eq!(
        missing.to_string(),
        format!(
            "Shop::item of service `shop`: answered 404 Not Found ({})",
            server.url()
        )
    );
    let wrapped = shop.maybe(0).await.unwrap_err();
    assert!(wrapped.0.contains("answered 418"), "{wrapped:?}");
}

#[tokio::test]
async fn what_cannot_stand_in_a_path_is_refused_and_not_sent() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let shop = client(&[server.url()], "").await;
    for (id, why) in [
        ("", "`id` is empty"),
        (".", "`id` is `.`"),
        ("..", "`id` is `..`"),
    ] {
        let error = shop.item(id).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Request, "{id}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!((error.attempts(), error.is_sent()), (0, Sent::No));
    }
    let filter = Filter {
        text: "",
        page: Some(1),
        tag: Vec::new(),
    };
    let error = shop
        .search(&filter, 1, "line\nbreak", None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Request);
    assert!(!error.to_string().contains("line"), "{error}");
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn what_a_service_says_about_its_errors_is_read() {
    let server = Server::start(|seen| match &*seen.target {
        "/items/1" => Reply::json(r#"{"code": 17}"#).with_status(409),
        "/items/2" => Reply::status(409)
            .header("content-type", "text/html")
            .body("{}"),
        _ => Reply::json(r#"{"type": "urn:gone", "title": "Gone", "detail": "sold", "sku": 5}"#)
            .with_status(410)
            .header("content-type", "application/problem+json"),
    })
    .await;
    let running = till(&[server.url()], "").await;
    let strict: StrictShop = running.client().unwrap();
    let error = strict.item(1).await.unwrap_err();
    assert_eq!(error.problem(), Some(&ShopProblem { code: 17 }));
    let error = strict.item(2).await.unwrap_err();
    assert_eq!((error.problem(), &error.body()[..]), (None, &b"{}"[..]));
    let plain = running.manager().http_client("shop").unwrap();
    let error = plain.get("/x").receive_nothing().await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.kind.as_deref(), Some("urn:gone"));
    assert_eq!(problem.extension::<u32>("sku"), Some(5));
    assert_eq!(problem.to_string(), "Gone: sold");
}

#[tokio::test]
async fn an_answer_that_is_not_what_the_method_says_is_an_error() {
    let server = Server::start(|seen| match seen.number {
        0 => Reply::json(r#"{"id": 7}"#),
        1 => Reply::status(200)
            .header("content-type", "text/html")
            .body("<html>"),
        2 => Reply::status(200),
        _ => Reply::status(200).body(vec![b'x'; 2_000]),
    })
    .await;
    let shop = client(&[server.url()], "response_bytes_max = \"1KB\"").await;
    for wanted in [
        "the answer is not what the method returns: ",
        "answered with `text/html`, not with JSON",
        "answered 200 OK without a body",
    ] {
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Decode);
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(!error.is_retryable());
    }
    let error = shop.picture(1, "png").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::TooLarge);
    assert!(
        error.to_string().contains("longer than 1000 bytes"),
        "{error}"
    );
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn calls_without_a_trait_take_the_same_way() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let running = till(&[server.url()], "").await;
    let shop = running.manager().http_client("shop").unwrap();
    let call = shop
        .get("/api/items")
        .segment("id", "a b")
        .query("page", &2);
    let found: Item = call.header("x-tenant", "acme").receive().await.unwrap();
    assert_eq!(found, item());
    let sent = shop.post("/api/items").json(&item()).idempotent();
    sent.receive_nothing().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].target, "/api/items/a%20b?page=2");
    assert_eq!(seen[0].header("x-tenant"), "acme");
    assert_eq!(seen[1].header("idempotency-key").len(), 36);
    let error = running.manager().http_client("shpo").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("service `shpo` is not configured"),
        "{error}"
    );
    assert!(error.to_string().contains("there is `shop`"), "{error}");
}

#[tokio::test]
async fn options_of_a_call_stand_above_everything() {
    let server = Server::start(|_| Reply::status(503)).await;
    let shop = client(&[server.url()], "").await;
    let name = "x-tenant".parse().unwrap();
    let options = CallOptions::new()
        .no_retry()
        .header(name, "other".parse().unwrap());
    let filter = Filter {
        text: "x",
        page: None,
        tag: Vec::new(),
    };
    let error = shop
        .with(options)
        .search(&filter, 1, "acme", None)
        .await
        .unwrap_err();
    assert_eq!((error.attempts(), error.kind()), (1, CallErrorKind::Status));
    assert_eq!(server.seen()[0].header("x-tenant"), "other");
}

/// A client of which a part is there.
#[service_client(service = "shop", client = PartialShop)]
trait ShopInPart {
    #[cfg(false)]
    #[get("/never/{id}")]
    async fn never(&self, id: NoSuchType) -> Result<NoSuchType, CallError>;

    #[cfg(false)]
    #[get("/left")]
    async fn left(&self) -> Result<NoSuchType, CallError>;

    #[cfg(true)]
    #[get("/left")]
    async fn left(&self) -> Result<u32, CallError>;

    #[get("/items/{id}")]
    async fn item(&self, id: u32) -> Result<Item, CallError>;
}

#[tokio::test]
async fn a_method_is_there_under_its_condition() {
    let server = Server::start(|seen| match &*seen.target {
        "/left" => Reply::json("3"),
        _ => Reply::json(ITEM),
    })
    .await;
    let running = till(&[server.url()], "methods.item.retry.attempts = 1").await;
    let shop: PartialShop = running.client().unwrap();
    assert_eq!(shop.item(7).await.unwrap(), item());
    assert_eq!(shop.left().await.unwrap(), 3);
    let targets: Vec<_> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/items/7", "/left"]);
    server.change(|_| Reply::status(500));
    assert_eq!(shop.item(7).await.unwrap_err().method(), "ShopInPart::item");
    // As it is for who implements the trait.
    struct Fake;
    impl ShopInPart for Fake {
        async fn left(&self) -> Result<u32, CallError> {
            Ok(8)
        }

        async fn item(&self, _: u32) -> Result<Item, CallError> {
            Ok(item())
        }
    }
    let shop = PartialShop::from_impl(Fake);
    assert_eq!(
        (shop.left().await.unwrap(), shop.item(1).await.unwrap()),
        (8, item())
    );
}
