//! What becomes of an answer, by what the method returns. Generated code names these types; nobody
//! else does.

use std::marker::PhantomData;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::events::EventStream;
use super::response::Response;
use super::stack::Answer;
use super::stream::ByteStream;

/// An answer before it is read.
#[derive(Debug)]
pub struct Received(pub(super) Answer);

/// How an answer is read.
pub trait Read {
    /// What it is read as.
    type Output;

    /// Whether 404 is an answer like any other.
    const NOT_FOUND_IS_FINE: bool = false;

    /// Whether it is read while it comes.
    const STREAMED: bool = false;

    /// The formats that can be read; `None` for the formats of JSON.
    const ACCEPT: Option<&'static str> = None;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(received: &mut Received) -> Result<Self::Output, String>;
}

/// What JSON, or MessagePack, can be read as.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from an answer",
    label = "this type does not implement `Deserialize`",
    note = "derive it: #[derive(Deserialize)]"
)]
pub trait Answered: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Answered for T {}

/// JSON, or MessagePack where the answer says so.
#[derive(Debug)]
pub struct Json<T>(PhantomData<T>);

/// Bytes as they come.
#[derive(Debug)]
pub struct Raw;

/// Nothing is read.
#[derive(Debug)]
pub struct Empty;

/// Bytes while they come.
#[derive(Debug)]
pub struct Pieces;

/// Server-sent events.
#[derive(Debug)]
pub struct Events;

/// 404 is `None`.
#[derive(Debug)]
pub struct Maybe<R>(PhantomData<R>);

/// With status and headers.
#[derive(Debug)]
pub struct Full<R>(PhantomData<R>);

impl<T: Answered> Read for Json<T> {
    type Output = T;

    fn read(received: &mut Received) -> Result<T, String> {
        let answer = &received.0;
        #[cfg(feature = "msgpack")]
        if is_msgpack(&answer.headers) {
            return rmp_serde::from_slice(&answer.body)
                .map_err(|error| format!("the answer is not what the method returns: {error}"));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            let content_type = answer.headers.get(CONTENT_TYPE);
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

    fn read(received: &mut Received) -> Result<Bytes, String> {
        Ok(received.0.body.clone())
    }
}

impl Read for Empty {
    type Output = ();

    fn read(_: &mut Received) -> Result<(), String> {
        Ok(())
    }
}

impl Read for Pieces {
    type Output = ByteStream;

    const STREAMED: bool = true;
    const ACCEPT: Option<&'static str> = Some("*/*");

    fn read(received: &mut Received) -> Result<ByteStream, String> {
        let rest = received.0.rest.take();
        Ok(rest.map_or_else(ByteStream::empty, ByteStream::of))
    }
}

impl Read for Events {
    type Output = EventStream;

    const STREAMED: bool = true;
    const ACCEPT: Option<&'static str> = Some("text/event-stream");

    fn read(received: &mut Received) -> Result<EventStream, String> {
        let answer = &mut received.0;
        if !is_event_stream(&answer.headers) {
            let format = answer.headers.get(CONTENT_TYPE);
            let format = format.and_then(|value| value.to_str().ok());
            let format = format.unwrap_or("no content type");
            return Err(format!(
                "answered with `{format}`, not with `text/event-stream`"
            ));
        }
        let bytes = answer.rest.take();
        let bytes = bytes.map_or_else(ByteStream::empty, ByteStream::of_events);
        Ok(EventStream::of(
            bytes,
            answer.bytes_max,
            answer.again.take(),
        ))
    }
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(str::trim)
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    essence(headers).is_some_and(|essence| essence.eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(feature = "msgpack")]
fn is_msgpack(headers: &HeaderMap) -> bool {
    let known = [
        "application/msgpack",
        "application/vnd.msgpack",
        "application/x-msgpack",
    ];
    essence(headers).is_some_and(|essence| {
        let mut known = known.iter();
        known.any(|known| essence.eq_ignore_ascii_case(known))
    })
}

impl<R: Read> Read for Maybe<R> {
    type Output = Option<R::Output>;

    const NOT_FOUND_IS_FINE: bool = true;
    const STREAMED: bool = R::STREAMED;
    const ACCEPT: Option<&'static str> = R::ACCEPT;

    fn read(received: &mut Received) -> Result<Self::Output, String> {
        if received.0.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        R::read(received).map(Some)
    }
}

impl<R: Read> Read for Full<R> {
    type Output = Response<R::Output>;

    const NOT_FOUND_IS_FINE: bool = R::NOT_FOUND_IS_FINE;
    const STREAMED: bool = R::STREAMED;
    const ACCEPT: Option<&'static str> = R::ACCEPT;

    fn read(received: &mut Received) -> Result<Self::Output, String> {
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
