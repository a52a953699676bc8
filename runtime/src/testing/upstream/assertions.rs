//! Assertions about an [`Upstream`](super::Upstream): a macro, and what it expands to.

use std::fmt::Write as _;

use super::super::TestApp;
use super::route::Route;
use super::{Upstream, UpstreamInstance, UpstreamRequest};

/// Asserts that an [`Upstream`](crate::testing::Upstream), or one of its instances, was asked for
/// something. Settles first.
///
/// It gives the first request that fits; with `times` all of them, and there must be exactly so many. Each
/// attempt at a call is a request, and one that got no connection is none.
///
/// ```
/// # use interline::testing::{TestApp, Upstream, UpstreamRequest};
/// # use interline::assert_called;
/// # async fn test(app: TestApp, stock: Upstream) {
/// let request = assert_called!(app, stock, "GET /items/{id}");
/// assert_eq!(request.header("accept"), Some("application/json"));
/// assert_called!(app, stock, "POST /orders", times = 0);
/// assert_called!(app, stock, |request: &UpstreamRequest| request.attempt() == Some(2));
/// # }
/// ```
#[macro_export]
macro_rules! assert_called {
    ($app:expr, $upstream:expr, $route:literal $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::upstream_assertions::called(
            &$app, &$upstream, $route
        ))
    };
    ($app:expr, $upstream:expr, $route:literal, times = $times:expr $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::upstream_assertions::called_times(
            &$app, &$upstream, $route, $times
        ))
    };
    ($app:expr, $upstream:expr, $fits:expr $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::upstream_assertions::called_with(
            &$app,
            &$upstream,
            $fits,
            ::core::stringify!($fits),
        ))
    };
}

/// Who was asked.
pub trait Asked {
    /// What it was asked for.
    fn asked(&self) -> Vec<UpstreamRequest>;
    /// Who it is, in words.
    fn who(&self) -> String;
}

impl Asked for Upstream {
    fn asked(&self) -> Vec<UpstreamRequest> {
        self.requests()
    }

    fn who(&self) -> String {
        format!("`{}`", self.service())
    }
}

impl Asked for UpstreamInstance {
    fn asked(&self) -> Vec<UpstreamRequest> {
        self.requests()
    }

    fn who(&self) -> String {
        format!("`{}`", self.url())
    }
}

/// The first request of a route, or the text of the failure.
pub async fn called(
    app: &TestApp,
    upstream: &impl Asked,
    route: &str,
) -> Result<UpstreamRequest, String> {
    let parsed = Route::parse(route);
    called_with(app, upstream, |request| fits(&parsed, request), route).await
}

/// The first request that fits, or the text of the failure.
pub async fn called_with(
    app: &TestApp,
    upstream: &impl Asked,
    fits: impl Fn(&UpstreamRequest) -> bool,
    wanted: &str,
) -> Result<UpstreamRequest, String> {
    app.settle().await;
    let asked = upstream.asked();
    if let Some(found) = asked.iter().find(|request| fits(request)) {
        return Ok(found.clone());
    }
    // The compiler breaks long expressions where it likes.
    let wanted = wanted.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut what = format!("expected a request `{wanted}` to {}", upstream.who());
    list(&mut what, &asked);
    Err(app.failure(&what))
}

/// So many requests of a route, or the text of the failure.
pub async fn called_times(
    app: &TestApp,
    upstream: &impl Asked,
    route: &str,
    times: usize,
) -> Result<Vec<UpstreamRequest>, String> {
    let parsed = Route::parse(route);
    app.settle().await;
    let asked = upstream.asked();
    let mut found = asked.clone();
    found.retain(|request| fits(&parsed, request));
    if found.len() == times {
        return Ok(found);
    }
    let (count, who) = (found.len(), upstream.who());
    let mut what = format!("expected {times} requests `{route}` to {who}, and there were {count}");
    list(&mut what, &asked);
    Err(app.failure(&what))
}

fn fits(route: &Route, request: &UpstreamRequest) -> bool {
    route.matches(request.method(), request.path()).is_some()
}

fn list(text: &mut String, asked: &[UpstreamRequest]) {
    if asked.is_empty() {
        text.push_str("\nasked instead: nothing");
        return;
    }
    text.push_str("\nasked:");
    for request in asked {
        let at = request.at().as_secs_f64();
        let instance = request.instance();
        let _ = write!(text, "\n  {at:>10.3}s  {request} of {instance}");
    }
}
