//! What a server connection reads: heads, bodies, and the sign that the client has gone.
//!
//! Invariant: whoever reads wakes whoever waits for the body, so that the connection and a body which is polled elsewhere
//! cannot take each other's wake-up.

use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::decode::{Decoded, Decoder};
use super::parse::{RequestHead, parse_request};
use super::pipe::Pipe;
use super::scan::{HeadError, Scanner};
use crate::http::body::{BodyError, Io};
use crate::http::buffers::CHUNK;
use crate::http::drain::Drain;
use crate::http::settings::{EndReason, ServerSettings};
use crate::http::timer::{Pace, Patience, Timer};

pub(super) enum Next {
    Request(Box<RequestHead>),
    Reject(HeadError),
    End(EndReason),
}

pub(super) struct State<IO> {
    pub(super) pipe: Pipe<IO>,
    pub(super) decoder: Decoder,
    /// Numbers the exchanges, so that an old body cannot read from a later one.
    pub(super) exchange: u64,
    /// The client waits for "100 Continue".
    pub(super) expects: bool,
    pub(super) head_sent: bool,
    pub(super) body_failed: bool,
    pub(super) reading: Patience,
    pub(super) body_waker: Option<Waker>,
    pub(super) timer: Timer,
}

/// What `poll_head` waits for.
pub(super) struct Waiting {
    first: bool,
    armed: bool,
    begun: bool,
    blank_lines: u8,
    drain_grace: bool,
}

impl Waiting {
    pub(super) fn new(served: u64, input: &BytesMut) -> Self {
        Waiting {
            first: served == 0,
            armed: false,
            begun: !input.is_empty(),
            blank_lines: 0,
            drain_grace: false,
        }
    }
}

impl<IO: Io> State<IO> {
    pub(super) fn new(io: IO, read_ahead: BytesMut, settings: &ServerSettings) -> Self {
        let pace = Pace { window: settings.body_idle, least: settings.min_progress };
        State {
            pipe: Pipe::new(io, read_ahead, pace),
            decoder: Decoder::Done,
            exchange: 0,
            expects: false,
            head_sent: false,
            body_failed: false,
            reading: Patience::default(),
            body_waker: None,
            timer: Timer::default(),
        }
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scanner: &mut Scanner,
        waiting: &mut Waiting,
        settings: &ServerSettings,
        drain: &mut Drain,
    ) -> Poll<Next> {
        loop {
            // RFC 9112 2.2: an empty line before the request line is skipped.
            while self.pipe.input.starts_with(b"\r\n") && waiting.blank_lines < 2 {
                let _ = self.pipe.input.split_to(2);
                waiting.blank_lines += 1;
                *scanner = Scanner::default();
            }
            match scanner.scan(&self.pipe.input, &settings.head) {
                Ok(Some(n)) => {
                    self.timer.clear();
                    let head = self.pipe.input.split_to(n).freeze();
                    return Poll::Ready(match parse_request(&head, &settings.head) {
                        Ok(head) => Next::Request(Box::new(head)),
                        Err(error) => Next::Reject(error),
                    });
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Next::Reject(error)),
            }
            match self.pipe.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.pipe.input.is_empty() => {
                    return Poll::Ready(Next::End(EndReason::ClientClosed));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End(EndReason::Disconnected)),
                Poll::Ready(Ok(_)) => waiting.armed &= waiting.begun,
                Poll::Pending => return self.poll_head_waits(cx, waiting, settings, drain),
            }
            waiting.begun = true;
        }
    }

    /// No byte is there. The drain is asked only now: a request that arrived before it is served.
    fn poll_head_waits(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting,
        settings: &ServerSettings,
        drain: &mut Drain,
    ) -> Poll<Next> {
        if !waiting.armed {
            waiting.armed = true;
            self.timer.set(match (waiting.begun, waiting.first) {
                (true, _) => settings.head_timeout,
                (false, true) => settings.first_request_timeout,
                (false, false) => settings.keep_alive,
            });
        }
        if !waiting.begun && !waiting.drain_grace && drain.poll_started(cx).is_ready() {
            // A request may be on the way: lost, it could not be sent again unless it is idempotent. Its response says that it was the
            // last one.
            waiting.drain_grace = true;
            self.timer.set(settings.linger);
        }
        ready!(self.timer.poll(cx));
        Poll::Ready(match waiting.begun {
            true => Next::Reject(HeadError { status: 408, reason: "the head took too long" }),
            false if waiting.drain_grace => Next::End(EndReason::Drained),
            false => Next::End(EndReason::Idle),
        })
    }

    /// The next frame of the request's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        settings: &ServerSettings,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.body_failed {
            return Poll::Ready(Some(Err(BodyError::Stale)));
        }
        loop {
            match self.decoder.decode(&mut self.pipe.input, self.pipe.eof) {
                Ok(Decoded::NeedMore) => {}
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Err(error) => return self.fail_body(error),
            }
            self.send_continue(cx);
            match self.pipe.poll_fill(cx) {
                Poll::Ready(Ok(n)) => self.reading.moved(n),
                Poll::Ready(Err(error)) => return self.fail_body(error.into()),
                Poll::Pending => {
                    let pace = Pace { window: settings.body_idle, least: settings.min_progress };
                    if self.reading.poll_exhausted(cx, pace).is_ready() {
                        return self.fail_body(BodyError::Timeout);
                    }
                    if !self.body_waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                        self.body_waker = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn fail_body(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.body_failed = true;
        Poll::Ready(Some(Err(error)))
    }

    /// The handler wants the body: tell the client, if it waits for that and the answer is not out yet.
    fn send_continue(&mut self, cx: &mut Context<'_>) {
        if self.head_sent {
            return;
        }
        if std::mem::take(&mut self.expects) {
            self.pipe.out.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        if !self.pipe.out.is_empty() {
            // A failure shows again when the response is written.
            let _ = self.pipe.poll_write_out(cx);
        }
    }

    /// Ready when the client has gone. Reads ahead a little to notice that, and wakes the body for what came.
    pub(super) fn poll_disconnected(&mut self, cx: &mut Context<'_>, settings: &ServerSettings) -> Poll<()> {
        while self.pipe.input.len() < CHUNK && !self.pipe.eof {
            match self.pipe.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(n)) => {
                    self.reading.moved(n);
                    if let Some(waker) = self.body_waker.take() {
                        waker.wake();
                    }
                }
            }
        }
        if !self.pipe.eof || (settings.allow_half_close && self.request_may_be_whole()) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether what was read ahead may complete the request; for a chunked body that shows when it is read.
    fn request_may_be_whole(&self) -> bool {
        match self.decoder.remaining() {
            Some(left) => left <= self.pipe.input.len() as u64,
            None => !self.pipe.input.is_empty(),
        }
    }
}
