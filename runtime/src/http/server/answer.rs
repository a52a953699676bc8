//! Answers that a layer gives by itself.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

/// A problem document, as RFC 9457 describes it.
pub(super) fn problem<B: From<String>>(status: StatusCode, detail: &str) -> Response<B> {
    let body = serde_json::json!({
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    json(status, "application/problem+json", &body)
}

pub(super) fn json<B: From<String>>(
    status: StatusCode,
    content_type: &'static str,
    body: &serde_json::Value,
) -> Response<B> {
    let mut response = Response::new(B::from(body.to_string()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
