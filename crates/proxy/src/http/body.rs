//! The one body type: what a request or response carries, whichever protocol it came over.
//!
//! Invariant: a body produces bytes only when polled, so back pressure reaches the peer that sends it. A body that is
//! dropped unread tells its connection so, and the connection decides what that costs.
//!
//! Must not know: how HTTP/1.1 frames a message (it sees a [`super::h1`] connection through [`H1Source`]).

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::h2_body::H2Body;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Io for T {}

/// A byte stream whose type was forgotten; used where a connection leaves HTTP.
pub type BoxIo = Box<dyn Io>;

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    /// The sender's connection ended in the middle of the body.
    #[error("the connection closed before the body was complete")]
    Incomplete,
    /// The sender's framing is wrong.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// The sender made no progress for too long.
    #[error("the body made no progress within its time limit")]
    Timeout,
    /// The sender reset the HTTP/2 stream.
    #[error("the stream was reset: {0}")]
    Reset(h2::Reason),
    /// The connection's exchange is over; this body was read too late.
    #[error("the exchange is over")]
    Stale,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// A wrapper around the body refused it (for example, a size limit).
    #[error("the body was refused: {0}")]
    Refused(&'static str),
}

impl From<std::io::Error> for BodyError {
    fn from(error: std::io::Error) -> Self {
        BodyError::Io(error.kind())
    }
}

/// A body made elsewhere: wrappers that count, limit or mirror, and tests.
pub trait BodyStream: http_body::Body<Data = Bytes, Error = BodyError> {
    /// Does work that goes on beside the data, as [`Body::poll_progress`]. A wrapper passes it on.
    fn poll_progress(self: Pin<&mut Self>, _cx: &mut Context<'_>) {}
}

/// A connection that left HTTP: its byte stream and what was already read from it.
pub struct Upgraded {
    /// The byte stream.
    pub io: BoxIo,
    /// Bytes that were read from `io` behind the head.
    pub read_ahead: Bytes,
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("read_ahead", &self.read_ahead.len()).finish_non_exhaustive()
    }
}

/// What an HTTP/1.1 connection offers to the body that reads from it. `exchange` numbers the messages of a connection, so
/// that a body that outlives its exchange reads nothing of the next.
pub(super) trait H1Source {
    fn poll_frame(
        &self,
        exchange: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    fn poll_progress(&self, exchange: u64, cx: &mut Context<'_>);
    fn remaining(&self, exchange: u64) -> Option<u64>;
    fn abandon(&self, exchange: u64);
}

/// A body that an HTTP/1.1 connection is receiving.
pub(super) struct H1Body {
    source: Rc<dyn H1Source>,
    exchange: u64,
    ended: Cell<bool>,
}

impl H1Body {
    pub(super) fn new(source: Rc<dyn H1Source>, exchange: u64) -> Self {
        H1Body { source, exchange, ended: Cell::new(false) }
    }
}

impl Drop for H1Body {
    fn drop(&mut self) {
        if !self.ended.get() {
            self.source.abandon(self.exchange);
        }
    }
}

enum Kind {
    Empty,
    Full(Bytes),
    H1(H1Body),
    H2(Box<H2Body>),
    Upgraded(Box<Upgraded>),
    Boxed(Pin<Box<dyn BodyStream>>),
}

/// The body of a request or response. See the module.
pub struct Body(Kind);

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Body(Kind::Empty)
    }

    /// A body whose bytes are all here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Body(Kind::Empty) } else { Body(Kind::Full(bytes)) }
    }

    /// A body made elsewhere.
    pub fn boxed(stream: impl BodyStream + 'static) -> Self {
        Body(Kind::Boxed(Box::pin(stream)))
    }

    /// Marks a response that takes its connection out of HTTP: 101, or 2xx to CONNECT.
    pub fn upgraded(upgraded: Upgraded) -> Self {
        Body(Kind::Upgraded(Box::new(upgraded)))
    }

    pub(super) fn h1(body: H1Body) -> Self {
        Body(Kind::H1(body))
    }

    pub(super) fn h2(body: H2Body) -> Self {
        Body(Kind::H2(Box::new(body)))
    }

    /// The bytes, when all are here already: such a body can be sent again.
    pub fn as_full(&self) -> Option<Bytes> {
        match &self.0 {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            Kind::H1(_) | Kind::H2(_) | Kind::Upgraded(_) | Kind::Boxed(_) => None,
        }
    }

    /// Takes the byte stream of an upgraded connection out of the body.
    pub fn into_upgraded(self) -> Result<Upgraded, Body> {
        match self.0 {
            Kind::Upgraded(upgraded) => Ok(*upgraded),
            other => Err(Body(other)),
        }
    }

    /// Whether the body is an upgraded connection.
    pub fn is_upgraded(&self) -> bool {
        matches!(self.0, Kind::Upgraded(_))
    }

    /// Goes on with what belongs to this body beside its data: a response's body also carries the upload of its request.
    /// Call it when the data cannot be taken now, so that a slow reader of the response does not stop the upload.
    pub fn poll_progress(&mut self, cx: &mut Context<'_>) {
        match &mut self.0 {
            Kind::H1(body) => body.source.poll_progress(body.exchange, cx),
            Kind::H2(body) => body.poll_progress(cx),
            Kind::Boxed(body) => body.as_mut().poll_progress(cx),
            Kind::Empty | Kind::Full(_) | Kind::Upgraded(_) => {}
        }
    }

    /// Whether nothing follows what was polled, neither data nor trailers, so that the last frame can say so.
    pub(super) fn has_ended(&self) -> bool {
        match &self.0 {
            Kind::H1(body) => body.ended.get() || body.source.remaining(body.exchange) == Some(0),
            Kind::Empty | Kind::Full(_) | Kind::H2(_) | Kind::Upgraded(_) | Kind::Boxed(_) => {
                http_body::Body::is_end_stream(self)
            }
        }
    }

    /// Reads the body to its end, refusing more than `limit` bytes. Trailers are dropped.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        if let Some(bytes) = self.as_full() {
            return if bytes.len() > limit { Err(BodyError::Refused("too large")) } else { Ok(bytes) };
        }
        let mut all = bytes::BytesMut::new();
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                if all.len() + data.len() > limit {
                    return Err(BodyError::Refused("too large"));
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *self), cx)).await
    }
}

impl BodyStream for Body {
    fn poll_progress(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        Body::poll_progress(self.get_mut(), cx);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Kind::Empty | Kind::Upgraded(_) => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::H1(body) => {
                if body.ended.get() {
                    return Poll::Ready(None);
                }
                let polled = body.source.poll_frame(body.exchange, cx);
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    body.ended.set(true);
                }
                polled
            }
            Kind::H2(body) => body.poll_frame(cx),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Upgraded(_) => false,
            // Its end is still to be polled, because that is what gives the connection back.
            Kind::H1(body) => body.ended.get(),
            Kind::H2(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty | Kind::Upgraded(_) => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::H1(body) if body.ended.get() => SizeHint::with_exact(0),
            Kind::H1(body) => {
                body.source.remaining(body.exchange).map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Kind::H2(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::full(bytes)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Body::full(text)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Empty => "Empty",
            Kind::Full(_) => "Full",
            Kind::H1(_) => "H1",
            Kind::H2(_) => "H2",
            Kind::Upgraded(_) => "Upgraded",
            Kind::Boxed(_) => "Boxed",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}
