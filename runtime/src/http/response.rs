//! An answer with what stands around its body.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

/// An answer with its status and headers: what a method returns as `Result<Response<Order>, ..>`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Response<T> {
    /// The status: one of success.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: T,
    /// The endpoint that answered; empty for an answer that nobody sent.
    pub endpoint: Arc<str>,
    /// How many attempts it took.
    pub attempts: u32,
}

impl<T> Response<T> {
    /// An answer with status 200 and no headers, for a client that is not on the wire.
    #[must_use]
    pub fn new(body: T) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body,
            endpoint: "".into(),
            attempts: 1,
        }
    }
}
