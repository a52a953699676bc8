//! What a request carries.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// The body of a request in pieces, as they come: the type of an argument with `#[body]`.
///
/// Once the first piece was asked for, the call is not repeated, whatever it says of retries: what was
/// read cannot be read again. The deadline of the call is also that of the sending.
///
/// ```
/// use interline::http::BodyStream;
/// # fn stream() -> impl futures_core::Stream<Item = std::io::Result<bytes::Bytes>> + Send {
/// #     futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"text"))])
/// # }
/// let body = BodyStream::new(stream()).length(4);
/// ```
#[derive(Clone)]
pub struct BodyStream(Arc<Shared>);

struct Shared {
    pieces: Mutex<Pieces>,
    length: Option<u64>,
    begun: AtomicBool,
    failed: AtomicBool,
}

impl BodyStream {
    /// A body of these pieces. An error among them ends the call as one of kind `Request`.
    #[must_use]
    pub fn new<S, E>(pieces: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Error>,
    {
        Self(Arc::new(Shared {
            pieces: Mutex::new(Box::pin(Converted(Box::pin(pieces)))),
            length: None,
            begun: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }))
    }

    /// Says how many bytes come, so that the request has a `Content-Length`. More or fewer break the
    /// connection.
    #[must_use]
    pub fn length(mut self, bytes: u64) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.length = Some(bytes);
        }
        self
    }

    fn is_begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream")
            .field("begun", &self.is_begun())
            .finish_non_exhaustive()
    }
}

/// With errors of one type.
struct Converted<S>(Pin<Box<S>>);

impl<S, E> Stream for Converted<S>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<Error>,
{
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.0.as_mut().poll_next(cx);
        piece.map(|piece| piece.map(|piece| piece.map_err(Into::into)))
    }
}

/// The body of a call, as often as it is sent.
#[derive(Clone, Debug, Default)]
pub(super) enum Body {
    #[default]
    None,
    Whole(Bytes),
    Pieces(BodyStream),
}

impl Body {
    /// Whether a part of it is gone, so that it cannot be sent again.
    pub(super) fn is_begun(&self) -> bool {
        matches!(self, Self::Pieces(stream) if stream.is_begun())
    }

    /// Whether it comes as it is sent, so that only one attempt can send it.
    pub(super) fn is_in_pieces(&self) -> bool {
        matches!(self, Self::Pieces(_))
    }

    /// Whether its own source failed.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Pieces(stream) if stream.0.failed.load(Ordering::Acquire))
    }

    pub(super) fn to_reqwest(&self) -> Option<reqwest::Body> {
        match self {
            Self::None => None,
            Self::Whole(bytes) => Some(bytes.clone().into()),
            Self::Pieces(stream) => Some(reqwest::Body::wrap(Sending {
                shared: Arc::clone(&stream.0),
                began: false,
            })),
        }
    }
}

/// One sending of a stream. Given up before it began, it leaves the stream as it was; one that finds
/// that another began fails.
struct Sending {
    shared: Arc<Shared>,
    began: bool,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.began {
            if self.shared.begun.swap(true, Ordering::AcqRel) {
                let text = "another attempt has begun to send this body";
                return Poll::Ready(Some(Err(text.into())));
            }
            self.began = true;
        }
        let pieces = &self.shared.pieces;
        let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Err(_))) = &piece {
            self.shared.failed.store(true, Ordering::Release);
        }
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        match self.shared.length {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

/// A value that is sent as the bytes that it is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not sent as bytes",
    label = "expected `Bytes`, `Vec<u8>`, `&[u8]`, `String`, `&str` or `BodyStream`",
    note = "to send a value that implements `Serialize`, write `#[body]`"
)]
pub trait AsBody {
    /// The bytes.
    #[doc(hidden)]
    fn as_body(&self) -> Bytes;
}

impl AsBody for Bytes {
    fn as_body(&self) -> Bytes {
        self.clone()
    }
}

impl AsBody for Vec<u8> {
    fn as_body(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl AsBody for [u8] {
    fn as_body(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl AsBody for String {
    fn as_body(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

impl AsBody for str {
    fn as_body(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

impl<T: AsBody + ?Sized> AsBody for &T {
    fn as_body(&self) -> Bytes {
        (**self).as_body()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    async fn piece(body: &mut reqwest::Body) -> Option<Result<Bytes, reqwest::Error>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    struct Pieces(Vec<&'static str>);

    impl Stream for Pieces {
        type Item = std::io::Result<Bytes>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let next = self.0.pop();
            Poll::Ready(next.map(|text| Ok(Bytes::from_static(text.as_bytes()))))
        }
    }

    #[tokio::test]
    async fn of_two_that_send_a_stream_one_sends_all_of_it() {
        let body = Body::Pieces(BodyStream::new(Pieces(vec!["b", "a"])));
        let (mut one, mut two) = (body.to_reqwest().unwrap(), body.to_reqwest().unwrap());
        assert!(!body.is_begun());
        assert_eq!(piece(&mut one).await.unwrap().unwrap(), "a");
        assert!(piece(&mut two).await.unwrap().is_err());
        assert_eq!(piece(&mut one).await.unwrap().unwrap(), "b");
        assert!(piece(&mut one).await.is_none());
        assert!(body.is_begun() && !body.has_failed());
    }
}
