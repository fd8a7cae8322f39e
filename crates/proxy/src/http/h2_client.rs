//! The client's side of an HTTP/2 connection.
//!
//! Invariants: the caller spawns and owns the one [`H2Driver`] of a connection; a request waits while the peer allows no more
//! streams; REFUSED_STREAM and a GOAWAY below a request's stream are told apart from every other failure, because only they prove
//! that the peer did not act.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{PingPong, Reason};
use http::header::CONTENT_LENGTH;
use http::uri::Scheme;
use http::{Request, Response};

use super::body::{Body, Io};
use super::h2_body::{H2Body, H2Upload, InFlight, UploadError};
use super::hop;
use super::send_error::{SendError, SendFailure};
use super::settings::ClientSettings;
use super::timer::{Pace, Timer};

/// A connection to an HTTP/2 server. Clones share it.
#[derive(Clone)]
pub struct H2Client {
    send: SendRequest<Bytes>,
    in_flight: Rc<Cell<usize>>,
    closed: Rc<Cell<bool>>,
    scheme: Scheme,
    pace: Pace,
}

/// Does the connection's work; spawn it. It ends when the connection does, or when no client and no stream is left.
pub struct H2Driver {
    inner: Pin<Box<dyn Future<Output = Result<(), h2::Error>>>>,
    closed: Rc<Cell<bool>>,
}

impl Future for H2Driver {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.inner.as_mut().poll(cx);
        if polled.is_ready() {
            self.closed.set(true);
        }
        polled
    }
}

impl Drop for H2Driver {
    fn drop(&mut self) {
        self.closed.set(true);
    }
}

impl H2Client {
    /// Begins HTTP/2 on an established connection. `scheme` is what `:scheme` will say.
    pub async fn handshake<IO: Io>(
        io: IO,
        scheme: Scheme,
        settings: &ClientSettings,
    ) -> Result<(H2Client, H2Driver), h2::Error> {
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(settings.h2_stream_window)
            .initial_connection_window_size(settings.h2_connection_window)
            .max_send_buffer_size(settings.h2_send_buffer)
            .initial_max_send_streams(settings.h2_initial_streams)
            .max_header_list_size(u32::try_from(settings.head.max_head_bytes).unwrap_or(u32::MAX))
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await?;
        let mut pulse = Pulse::new(settings.h2_ping, connection.ping_pong());
        let inner = Box::pin(poll_fn(move |cx| {
            if pulse.poll_dead(cx).is_ready() {
                return Poll::Ready(Err(Reason::NO_ERROR.into()));
            }
            Pin::new(&mut connection).poll(cx)
        }));
        let closed = Rc::new(Cell::new(false));
        let pace = Pace { window: settings.body_idle, least: settings.min_progress };
        let client = H2Client { send, in_flight: Rc::default(), closed: Rc::clone(&closed), scheme, pace };
        Ok((client, H2Driver { inner, closed }))
    }

    /// Whether new requests may go here: the connection lives and the peer has not said GOAWAY.
    pub fn is_usable(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        !self.closed.get() && !matches!(self.send.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Requests whose response has not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// How many streams the peer allows at once.
    pub fn max_streams(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Sends `request`, in canonical form, and waits for the response's head. The rest of the upload goes on under the
    /// response's body. Dropping the future or the body resets the stream.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        let mut send = self.send.clone();
        if let Err(error) = poll_fn(|cx| send.poll_ready(cx)).await {
            return Err(SendError::not_sent(SendFailure::H2(error), Some(request)));
        }
        let (parts, body) = request.into_parts();
        let parts = match hop::request_to_h2(parts, &self.scheme) {
            Ok(parts) => parts,
            Err(reason) => return Err(SendError::not_sent(SendFailure::BadRequest(reason), None)),
        };
        let ended = body.has_ended();
        let (mut response, stream) = send
            .send_request(Request::from_parts(parts, ()), ended)
            .map_err(|error| SendError::not_sent(SendFailure::H2(error), None))?;
        let in_flight = InFlight::new(&self.in_flight);
        let mut upload = (!ended).then(|| H2Upload::new(stream, body, self.pace));
        let response = poll_fn(|cx| {
            if let Some(Poll::Ready(outcome)) = upload.as_mut().map(|upload| upload.poll(cx)) {
                upload = None;
                if let Err(UploadError::Body(error)) = outcome {
                    return Poll::Ready(Err(SendError::maybe(SendFailure::RequestBody(error))));
                }
            }
            Pin::new(&mut response).poll(cx).map_err(stream_error)
        })
        .await?;
        let (mut parts, recv) = response.into_parts();
        hop::strip_hop_by_hop(&mut parts.headers);
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // Kept even when the body has ended: with it goes the stream.
        let body = H2Body::new(recv, length, self.pace).beside(upload, in_flight);
        let body = if body.is_end_stream() { Body::empty() } else { Body::h2(body) };
        Ok(Response::from_parts(parts, body))
    }
}

/// RFC 9113 8.7: the two ways in which a server proves that it did not process a request.
fn stream_error(error: h2::Error) -> SendError {
    let refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    let beyond_goaway = error.is_go_away() && error.is_remote();
    if refused || beyond_goaway {
        SendError::not_sent(SendFailure::H2(error), None)
    } else {
        SendError::maybe(SendFailure::H2(error))
    }
}

/// Keep-alive pings.
pub(super) struct Pulse {
    every: Option<std::time::Duration>,
    ping: Option<PingPong>,
    timer: Timer,
    awaited: bool,
}

impl Pulse {
    pub(super) fn new(every: Option<std::time::Duration>, ping: Option<PingPong>) -> Self {
        Pulse { every, ping, timer: Timer::default(), awaited: false }
    }

    /// Ready when the peer left a ping unanswered.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(every), Some(ping)) = (self.every, self.ping.as_mut()) else { return Poll::Pending };
        if !self.timer.is_set() {
            self.timer.set(every);
        }
        if self.awaited && ping.poll_pong(cx).is_ready() {
            self.awaited = false;
        }
        while self.timer.poll(cx).is_ready() {
            if self.awaited {
                return Poll::Ready(());
            }
            self.awaited = ping.send_ping(h2::Ping::opaque()).is_ok();
            let _ = ping.poll_pong(cx);
            self.timer.set(every);
        }
        Poll::Pending
    }
}
