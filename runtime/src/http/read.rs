//! What becomes of an answer, by what the method returns. Generated code names these types; nobody
//! else does.

use std::marker::PhantomData;

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::response::Response;
use super::stack::Answer;

/// An answer before it is read.
#[derive(Debug)]
pub struct Received(pub(super) Answer);

/// How an answer is read.
pub trait Read {
    /// What it is read as.
    type Output;

    /// Whether 404 is an answer like any other.
    const NOT_FOUND_IS_FINE: bool = false;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(received: &Received) -> Result<Self::Output, String>;
}

/// What JSON can be read as.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from an answer",
    label = "this type does not implement `Deserialize`",
    note = "derive it: #[derive(Deserialize)]"
)]
pub trait Answered: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Answered for T {}

/// JSON.
#[derive(Debug)]
pub struct Json<T>(PhantomData<T>);

/// Bytes as they come.
#[derive(Debug)]
pub struct Raw;

/// Nothing is read.
#[derive(Debug)]
pub struct Empty;

/// 404 is `None`.
#[derive(Debug)]
pub struct Maybe<R>(PhantomData<R>);

/// With status and headers.
#[derive(Debug)]
pub struct Full<R>(PhantomData<R>);

impl<T: Answered> Read for Json<T> {
    type Output = T;

    fn read(received: &Received) -> Result<T, String> {
        let answer = &received.0;
        serde_json::from_slice(&answer.body).map_err(|error| {
            let content_type = answer.headers.get(http::header::CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok());
            match (answer.body.is_empty(), content_type) {
                (true, _) => format!("answered {} without a body", answer.status),
                (false, Some(format)) if !format.contains("json") => {
                    format!("answered with `{format}`, not with JSON")
                }
                _ => format!("the answer is not what the method returns: {error}"),
            }
        })
    }
}

impl Read for Raw {
    type Output = Bytes;

    fn read(received: &Received) -> Result<Bytes, String> {
        Ok(received.0.body.clone())
    }
}

impl Read for Empty {
    type Output = ();

    fn read(_: &Received) -> Result<(), String> {
        Ok(())
    }
}

impl<R: Read> Read for Maybe<R> {
    type Output = Option<R::Output>;

    const NOT_FOUND_IS_FINE: bool = true;

    fn read(received: &Received) -> Result<Self::Output, String> {
        if received.0.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        R::read(received).map(Some)
    }
}

impl<R: Read> Read for Full<R> {
    type Output = Response<R::Output>;

    const NOT_FOUND_IS_FINE: bool = R::NOT_FOUND_IS_FINE;

    fn read(received: &Received) -> Result<Self::Output, String> {
        let body = R::read(received)?;
        let answer = &received.0;
        Ok(Response {
            status: answer.status,
            headers: answer.headers.clone(),
            body,
            endpoint: answer.endpoint.clone(),
            attempts: answer.attempts,
        })
    }
}
