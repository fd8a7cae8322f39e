//! The client's side of an HTTP/1.1 connection: one request at a time, again and again.
//!
//! Invariants: the upload is driven by whoever polls the response, first `send` and then the response's body; the connection
//! is reusable only when both messages ended where they said and nothing else arrived; whoever stops in between closes it.
//!
//! Must not know: pools. A pool sets [`H1Client::on_idle`] and asks [`H1Client::is_reusable`] before each use; a peer's
//! close while idle shows there, without a task per connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};

use super::decode::{Decoded, Decoder};
use super::encode::{ConnectionField, Encoder, SendFraming, request_head};
use super::parse::{BodyFraming, ResponseHead, parse_response};
use super::pipe::Pipe;
use super::scan::Scanner;
use crate::http::body::{Body, BodyError, H1Body, H1Source, Io, Upgraded};
use crate::http::send_error::{SendError, SendFailure};
use crate::http::settings::ClientSettings;
use crate::http::timer::{Pace, Patience};

/// Called with a connection that has become idle. It may be dropped, or kept for the next request.
type OnIdle<IO> = Rc<dyn Fn(H1Client<IO>)>;

/// A connection to an HTTP/1.1 server. Clones are the same connection.
pub struct H1Client<IO: Io> {
    conn: Rc<ClientConn<IO>>,
}

impl<IO: Io> Clone for H1Client<IO> {
    fn clone(&self) -> Self {
        H1Client { conn: Rc::clone(&self.conn) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Busy,
    Closed,
}

struct ClientConn<IO: Io> {
    me: Weak<ClientConn<IO>>,
    state: RefCell<State<IO>>,
    upload: RefCell<Option<Upload>>,
    phase: Cell<Phase>,
    exchange: Cell<u64>,
    on_idle: RefCell<Option<OnIdle<IO>>>,
    settings: Rc<ClientSettings>,
}

struct State<IO> {
    pipe: Pipe<IO>,
    decoder: Decoder,
    keep_alive: bool,
    reading: Patience,
}

struct Upload {
    body: Body,
    encoder: Encoder,
    /// The server takes no more; its response may still come.
    stopped: bool,
}

impl<IO: Io> H1Client<IO> {
    /// A client on an established connection.
    pub fn new(io: IO, settings: Rc<ClientSettings>) -> Self {
        let pace = Pace { window: settings.body_idle, least: settings.min_progress };
        let conn = Rc::new_cyclic(|me| ClientConn {
            me: Weak::clone(me),
            state: RefCell::new(State {
                pipe: Pipe::new(io, BytesMut::new(), pace),
                decoder: Decoder::Done,
                keep_alive: true,
                reading: Patience::default(),
            }),
            upload: RefCell::new(None),
            phase: Cell::new(Phase::Idle),
            exchange: Cell::new(0),
            on_idle: RefCell::new(None),
            settings,
        });
        H1Client { conn }
    }

    /// Sets what is called each time that the connection becomes idle after an exchange. It should hold its pool weakly.
    pub fn on_idle(&self, hook: impl Fn(H1Client<IO>) + 'static) {
        *self.conn.on_idle.borrow_mut() = Some(Rc::new(hook));
    }

    /// Whether a request can be sent now: idle, and the peer has neither closed nor said anything unasked. Costs no system call
    /// while nothing happened. A connection that is not reusable is closed by asking.
    pub fn is_reusable(&self) -> bool {
        if self.conn.phase.get() != Phase::Idle {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let quiet = self.conn.state.borrow_mut().pipe.poll_fill(&mut cx).is_pending();
        if !quiet {
            self.conn.close();
        }
        quiet
    }

    /// Sends `request`, in canonical form and already without hop-by-hop fields, and waits for the response's head. The rest
    /// of the upload goes on under the response's body. Dropping the future closes the connection.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        if !self.is_reusable() {
            return Err(SendError::not_sent(SendFailure::Closed, Some(request)));
        }
        let conn = &self.conn;
        let (method, upgrading) = conn.begin(request);
        let guard = CloseUnlessDone { conn, done: Cell::new(false) };
        let mut scanner = Scanner::default();
        let mut informational = 0;
        let head = loop {
            let head = poll_fn(|cx| conn.poll_head(cx, &mut scanner, &method))
                .await
                .map_err(|failure| conn.send_error(failure))?;
            let status = head.response.status();
            if !status.is_informational() || (status == StatusCode::SWITCHING_PROTOCOLS && upgrading) {
                break head;
            }
            informational += 1;
            let allowed = conn.settings.max_informational;
            if status == StatusCode::SWITCHING_PROTOCOLS || informational > allowed {
                let what = SendFailure::BadResponse("an informational response that was not asked for");
                return Err(SendError::maybe(what));
            }
            scanner = Scanner::default();
        };
        guard.done.set(true);
        Ok(conn.response(head, &method))
    }
}

struct CloseUnlessDone<'a, IO: Io> {
    conn: &'a ClientConn<IO>,
    done: Cell<bool>,
}

impl<IO: Io> Drop for CloseUnlessDone<'_, IO> {
    fn drop(&mut self) {
        if !self.done.get() {
            self.conn.close();
        }
    }
}

impl<IO: Io> ClientConn<IO> {
    /// Puts the head where it will be written, and keeps the body.
    fn begin(&self, request: Request<Body>) -> (Method, bool) {
        let (parts, body) = request.into_parts();
        let method = parts.method;
        let upgrading = parts.headers.contains_key(UPGRADE);
        let framing = request_framing(&method, &body);
        let connection = if upgrading { ConnectionField::Upgrade } else { ConnectionField::Absent };
        let state = &mut *self.state.borrow_mut();
        state.pipe.wrote = false;
        request_head(state.pipe.out.flat(), &method, &parts.uri, &parts.headers, framing, connection);
        state.keep_alive = true;
        self.exchange.set(self.exchange.get() + 1);
        self.phase.set(Phase::Busy);
        let encoder = Encoder::new(framing);
        *self.upload.borrow_mut() = Some(Upload { body, encoder, stopped: false });
        (method, upgrading)
    }

    fn send_error(&self, failure: SendFailure) -> SendError {
        if self.state.borrow().pipe.wrote {
            SendError::maybe(failure)
        } else {
            SendError::not_sent(failure, None)
        }
    }

    /// Moves the upload on as far as it goes now.
    fn poll_upload(&self, cx: &mut Context<'_>) -> Result<(), SendFailure> {
        // Taken out while its body is polled: that may run code which comes back here.
        let Some(mut upload) = self.upload.borrow_mut().take() else { return Ok(()) };
        let outcome = self.poll_upload_of(cx, &mut upload);
        if outcome.is_ok() && !(upload.encoder.is_finished() && self.is_written(&upload)) {
            *self.upload.borrow_mut() = Some(upload);
        }
        outcome
    }

    fn is_written(&self, upload: &Upload) -> bool {
        !upload.stopped && self.state.borrow().pipe.is_written()
    }

    fn poll_upload_of(&self, cx: &mut Context<'_>, upload: &mut Upload) -> Result<(), SendFailure> {
        const MISMATCH: SendFailure =
            SendFailure::RequestBody(BodyError::Malformed("not its announced length"));
        while !upload.stopped {
            let mut starved = false;
            while !upload.encoder.is_finished() && !self.state.borrow().pipe.out.is_full() {
                let polled = Pin::new(&mut upload.body).poll_frame(cx);
                let out = &mut self.state.borrow_mut().pipe.out;
                match polled {
                    Poll::Ready(Some(Ok(frame))) => upload.encoder.frame(frame, out).map_err(|_| MISMATCH)?,
                    Poll::Ready(None) => upload.encoder.end(out).map_err(|_| MISMATCH)?,
                    Poll::Ready(Some(Err(error))) => return Err(SendFailure::RequestBody(error)),
                    Poll::Pending => {
                        starved = true;
                        break;
                    }
                }
            }
            let written = self.state.borrow_mut().pipe.poll_write_out(cx);
            match written {
                Poll::Ready(Ok(())) if !starved && !upload.encoder.is_finished() => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) if !self.state.borrow().pipe.wrote => {
                    return Err(SendFailure::Io(error));
                }
                // It may have answered before it stopped reading.
                Poll::Ready(Err(_)) => upload.stopped = true,
            }
        }
        Ok(())
    }

    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        scanner: &mut Scanner,
        method: &Method,
    ) -> Poll<Result<ResponseHead, SendFailure>> {
        if let Err(failure) = self.poll_upload(cx) {
            return Poll::Ready(Err(failure));
        }
        let state = &mut *self.state.borrow_mut();
        loop {
            let limits = &self.settings.head;
            match scanner.scan(&state.pipe.input, limits) {
                Ok(Some(n)) => {
                    let head = state.pipe.input.split_to(n).freeze();
                    let parsed = parse_response(&head, limits, method);
                    return Poll::Ready(parsed.map_err(|error| SendFailure::BadResponse(error.reason)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(SendFailure::BadResponse(error.reason))),
            }
            match state.pipe.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(SendFailure::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SendFailure::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Makes the response whose body reads on from the connection.
    fn response(&self, head: ResponseHead, method: &Method) -> Response<Body> {
        let ResponseHead { response, framing, keep_alive } = head;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switching || (method == Method::CONNECT && response.status().is_success()) {
            let taken = self.state.borrow_mut().pipe.take_io();
            self.close();
            return response.map(|()| match taken {
                Some((io, read_ahead)) => Body::upgraded(Upgraded { io: Box::new(io), read_ahead }),
                None => Body::empty(),
            });
        }
        let whole = {
            let state = &mut *self.state.borrow_mut();
            state.keep_alive = keep_alive;
            state.decoder = Decoder::from(framing);
            state.reading.rest();
            match framing {
                BodyFraming::None | BodyFraming::Length(0) => Some(Bytes::new()),
                BodyFraming::Length(_) => state.decoder.take_complete(&mut state.pipe.input),
                BodyFraming::Chunked | BodyFraming::UntilClose => None,
            }
        };
        let body = match (whole, self.me.upgrade()) {
            (Some(bytes), _) => {
                self.complete();
                Body::full(bytes)
            }
            (None, Some(me)) => Body::h1(H1Body::new(me, self.exchange.get())),
            (None, None) => Body::empty(),
        };
        response.map(|()| body)
    }

    /// The response has ended. What is left of the upload is cancelled.
    fn complete(&self) {
        self.exchange.set(self.exchange.get() + 1);
        // Dropped when nothing is borrowed: a body may run code that comes back here.
        let unfinished = self.upload.borrow_mut().take();
        let uploaded = unfinished.is_none();
        drop(unfinished);
        let reusable = {
            let state = &mut *self.state.borrow_mut();
            let reusable = uploaded && state.keep_alive && state.pipe.input.is_empty() && !state.pipe.eof;
            state.pipe.rest();
            state.reading.rest();
            reusable
        };
        if !reusable {
            return self.close();
        }
        self.phase.set(Phase::Idle);
        let hook = self.on_idle.borrow().clone();
        if let (Some(hook), Some(conn)) = (hook, self.me.upgrade()) {
            hook(H1Client { conn });
        }
    }

    fn close(&self) {
        self.phase.set(Phase::Closed);
        self.exchange.set(self.exchange.get() + 1);
        let upload = self.upload.borrow_mut().take();
        self.state.borrow_mut().pipe.close();
        drop(upload);
    }

    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        loop {
            match state.decoder.decode(&mut state.pipe.input, state.pipe.eof) {
                Ok(Decoded::NeedMore) => {}
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match state.pipe.poll_fill(cx) {
                Poll::Ready(Ok(n)) => state.reading.moved(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => {
                    let pace = Pace { window: self.settings.body_idle, least: self.settings.min_progress };
                    if state.reading.poll_exhausted(cx, pace).is_ready() {
                        return Poll::Ready(Some(Err(BodyError::Timeout)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// A request whose body failed has no use for its response. A server that takes no more is no failure.
    fn drive_upload(&self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        self.poll_upload(cx).map_err(|failure| match failure {
            SendFailure::RequestBody(error) => error,
            _ => BodyError::Incomplete,
        })
    }
}

impl<IO: Io> H1Source for ClientConn<IO> {
    fn poll_frame(
        &self,
        exchange: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.exchange.get() != exchange {
            return Poll::Ready(Some(Err(BodyError::Stale)));
        }
        let polled = match self.drive_upload(cx) {
            Ok(()) => self.poll_data(cx),
            Err(error) => Poll::Ready(Some(Err(error))),
        };
        match &polled {
            Poll::Ready(None) => self.complete(),
            Poll::Ready(Some(Err(_))) => self.close(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn poll_progress(&self, exchange: u64, cx: &mut Context<'_>) {
        // What fails here fails again, visibly, when the data is polled.
        if self.exchange.get() == exchange && self.drive_upload(cx).is_err() {
            self.close();
        }
    }

    fn remaining(&self, exchange: u64) -> Option<u64> {
        if self.exchange.get() == exchange { self.state.borrow().decoder.remaining() } else { None }
    }

    fn abandon(&self, exchange: u64) {
        if self.exchange.get() != exchange {
            return;
        }
        if self.state.borrow().decoder.is_done() {
            self.complete();
        } else {
            self.close();
        }
    }
}

fn request_framing(method: &Method, body: &Body) -> SendFraming {
    match body.size_hint().exact() {
        Some(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => SendFraming::None,
        Some(n) => SendFraming::Length(n),
        None => SendFraming::Chunked,
    }
}
