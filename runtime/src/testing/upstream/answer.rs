//! What an instance answers, or does instead.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

/// What an [`Upstream`](super::Upstream) answers to a request, or does instead.
///
/// ```
/// use std::time::Duration;
/// use interline::testing::Answer;
///
/// Answer::json(&["a", "b"]).after(Duration::from_millis(80));
/// Answer::status(503).header("retry-after", "2");
/// Answer::json(&["a", "b"]).breaks_off_after(4); // the head, four bytes, and the connection is lost
/// Answer::reset();                               // lost before the head
/// Answer::silence();                             // taken, and never answered
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer is given to a route of an upstream"]
pub struct Answer {
    pub(super) after: Duration,
    pub(super) act: Act,
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Reply(Reply),
    /// No connection is taken.
    Refused,
    /// Nothing comes back when a connection is tried.
    Unreachable,
    /// The connection is lost before the head.
    Reset,
    /// Nothing is ever answered.
    Silence,
    /// It is given back unseen: because there is too much to do, or because the server goes away.
    Busy,
    Leaving,
}

/// A head and a body.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Each after its wait.
    pub(super) pieces: VecDeque<(Duration, Bytes)>,
    pub(super) end: End,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    /// After so many bytes the connection is lost.
    BreaksOff(usize),
    /// After so many bytes nothing comes any more.
    Stalls(usize),
}

impl Answer {
    fn of(act: Act) -> Self {
        Self {
            after: Duration::ZERO,
            act,
        }
    }

    /// This status, without a body.
    ///
    /// # Panics
    /// If it is not between 200 and 999: what comes before an answer is none.
    #[track_caller]
    pub fn status(status: u16) -> Self {
        let known = StatusCode::from_u16(status).ok();
        let Some(status) = known.filter(|status| !status.is_informational()) else {
            panic!("{status} is no status of an answer; write for example 503");
        };
        Self::of(Act::Reply(Reply {
            status,
            headers: HeaderMap::new(),
            pieces: VecDeque::new(),
            end: End::Complete,
        }))
    }

    /// 200 without a body.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// 200 with this as JSON.
    ///
    /// # Panics
    /// If it cannot be written as JSON.
    #[track_caller]
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::ok()
                .header(CONTENT_TYPE.as_str(), "application/json")
                .body(body),
            Err(error) => panic!("the answer cannot be written as JSON: {error}"),
        }
    }

    /// No connection: it is refused at once. Nothing was sent, so any call may be repeated.
    pub fn refused() -> Self {
        Self::of(Act::Refused)
    }

    /// No connection: nothing comes back until the `connect_timeout` of the service.
    pub fn unreachable() -> Self {
        Self::of(Act::Unreachable)
    }

    /// The connection is lost when the request was read and before anything is answered.
    pub fn reset() -> Self {
        Self::of(Act::Reset)
    }

    /// The request is taken, and nothing is ever answered.
    pub fn silence() -> Self {
        Self::of(Act::Silence)
    }

    /// The request is given back unseen because there is too much to do (`REFUSED_STREAM` of HTTP/2).
    pub fn given_back() -> Self {
        Self::of(Act::Busy)
    }

    /// The request is given back unseen because the server takes no more on this connection (`GOAWAY` of
    /// HTTP/2).
    pub fn going_away() -> Self {
        Self::of(Act::Leaving)
    }

    /// So much later: before the head, or before whatever happens instead.
    pub fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }

    /// With another status.
    ///
    /// # Panics
    /// If nothing is answered, or as for [`status`](Self::status).
    #[track_caller]
    pub fn with_status(mut self, status: u16) -> Self {
        let Act::Reply(other) = Self::status(status).act else {
            unreachable!("a status is a reply");
        };
        self.reply().status = other.status;
        self
    }

    /// With this header, beside others of its name.
    ///
    /// # Panics
    /// If nothing is answered, or it is no header.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        let Some((header, valid)) = header.zip(HeaderValue::from_str(value).ok()) else {
            panic!("`{name}: {value}` is no header");
        };
        self.reply().headers.append(header, valid);
        self
    }

    /// With this body, whole and as it is.
    ///
    /// # Panics
    /// If nothing is answered.
    #[track_caller]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let whole = (!body.is_empty()).then_some((Duration::ZERO, body));
        self.reply().pieces = whole.into_iter().collect();
        self
    }

    /// With a body in pieces, each after its wait.
    ///
    /// # Panics
    /// If nothing is answered.
    #[track_caller]
    pub fn pieces<B: Into<Bytes>>(
        mut self,
        pieces: impl IntoIterator<Item = (Duration, B)>,
    ) -> Self {
        let pieces = pieces.into_iter();
        self.reply().pieces = pieces.map(|(wait, piece)| (wait, piece.into())).collect();
        self
    }

    /// With the body that it has in pieces of so many bytes, each after this wait.
    ///
    /// # Panics
    /// If nothing is answered, or `bytes` is 0.
    #[track_caller]
    pub fn slowly(mut self, bytes: usize, wait: Duration) -> Self {
        assert!(bytes > 0, "a piece has at least one byte");
        let reply = self.reply();
        let mut whole = BytesMut::new();
        for (_, piece) in reply.pieces.drain(..) {
            whole.extend_from_slice(&piece);
        }
        let mut whole = whole.freeze();
        while !whole.is_empty() {
            let piece = whole.split_to(bytes.min(whole.len()));
            reply.pieces.push_back((wait, piece));
        }
        self
    }

    /// After the head and so many bytes of the body the connection is lost.
    ///
    /// # Panics
    /// If nothing is answered, or the body has not more than so many bytes.
    #[track_caller]
    pub fn breaks_off_after(self, bytes: usize) -> Self {
        self.ending(End::BreaksOff(bytes), bytes)
    }

    /// After the head and so many bytes of the body nothing comes any more.
    ///
    /// # Panics
    /// If nothing is answered, or the body has not more than so many bytes.
    #[track_caller]
    pub fn stalls_after(self, bytes: usize) -> Self {
        self.ending(End::Stalls(bytes), bytes)
    }

    #[track_caller]
    fn ending(mut self, end: End, bytes: usize) -> Self {
        let reply = self.reply();
        let length: usize = reply.pieces.iter().map(|(_, piece)| piece.len()).sum();
        assert!(
            bytes < length,
            "the body has {length} bytes, and all of them come; give it a longer one first"
        );
        reply.end = end;
        self
    }

    #[track_caller]
    fn reply(&mut self) -> &mut Reply {
        match &mut self.act {
            Act::Reply(reply) => reply,
            act => panic!("nothing is answered ({act:?}), so there is neither head nor body"),
        }
    }
}
