//! Why a request got no response, and whether the peer can have seen it.
//!
//! Invariant: [`Delivery::NotSent`] is claimed only when no byte of the request can have been acted upon; a retry that
//! must not repeat a payment rests on it.

use http::Request;

use super::body::{Body, BodyError};

/// Whether a request that failed can have reached the peer's application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing was written, or the peer said that it did not act (REFUSED_STREAM, GOAWAY below this stream).
    NotSent,
    /// The peer may have acted on it.
    MaybeDelivered,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// The connection was closed before the response's head was complete.
    #[error("the connection closed before a response")]
    Closed,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// The response's head is malformed or too large.
    #[error("the response is malformed: {0}")]
    BadResponse(&'static str),
    /// The request cannot be written in this protocol.
    #[error("the request cannot be forwarded: {0}")]
    BadRequest(&'static str),
    /// The request's own body failed; the sender is at fault, not the peer.
    #[error("the request's body failed: {0}")]
    RequestBody(BodyError),
    /// HTTP/2 said no.
    #[error("http/2 failed: {0}")]
    H2(h2::Error),
}

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub struct SendError {
    /// Whether the peer can have acted on it.
    pub delivery: Delivery,
    /// What went wrong.
    #[source]
    pub failure: SendFailure,
    /// The request, untouched, when it never left: send it over another connection.
    pub request: Option<Box<Request<Body>>>,
}

impl SendError {
    pub(super) fn not_sent(failure: SendFailure, request: Option<Request<Body>>) -> Self {
        SendError { delivery: Delivery::NotSent, failure, request: request.map(Box::new) }
    }

    pub(super) fn maybe(failure: SendFailure) -> Self {
        SendError { delivery: Delivery::MaybeDelivered, failure, request: None }
    }
}
