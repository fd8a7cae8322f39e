//! Bodies over HTTP/2: receiving one, and sending one within the peer's window.
//!
//! Invariant: window is given back to the peer when the data is handed on, and data is taken from a body only when the
//! window has room, so back pressure crosses the proxy.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError};
use super::hop;
use super::timer::{Pace, Patience};

/// The most that is asked of the window at once.
const RESERVE: usize = 64 * 1024;

/// Data up to this size is copied before it is queued.
const SMALL: usize = 4 * 1024;

/// Counts the streams that are open; see [`super::H2Client::in_flight`].
pub(super) struct InFlight(Rc<Cell<usize>>);

impl InFlight {
    pub(super) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        InFlight(Rc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A body that an HTTP/2 stream is receiving.
pub(super) struct H2Body {
    recv: RecvStream,
    data_ended: bool,
    ended: bool,
    remaining: Option<u64>,
    reading: Patience,
    pace: Pace,
    upload: Option<H2Upload>,
    _in_flight: Option<InFlight>,
}

impl H2Body {
    pub(super) fn new(recv: RecvStream, length: Option<u64>, pace: Pace) -> Self {
        let reading = Patience::default();
        let (data_ended, ended) = (false, false);
        H2Body { recv, data_ended, ended, remaining: length, reading, pace, upload: None, _in_flight: None }
    }

    /// The request that goes on beside this response.
    pub(super) fn beside(mut self, upload: Option<H2Upload>, in_flight: InFlight) -> Self {
        self.upload = upload;
        self._in_flight = Some(in_flight);
        self
    }

    pub(super) fn poll_progress(&mut self, cx: &mut Context<'_>) {
        if let Some(upload) = &mut self.upload
            && upload.poll(cx).is_ready()
        {
            self.upload = None;
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_progress(cx);
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.poll_stream(cx);
        match &polled {
            Poll::Pending => {
                if self.reading.poll_exhausted(cx, self.pace).is_ready() {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
            }
            Poll::Ready(Some(Ok(_))) => self.reading.moved(1),
            Poll::Ready(None | Some(Err(_))) => {
                self.ended = true;
                // Dropped here, the rest of an upload resets its half of the stream.
                self.upload = None;
            }
        }
        polled
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.data_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only when the stream is gone, which the next poll tells.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    self.reading.moved(data.len());
                    self.remaining = self.remaining.map(|left| left.saturating_sub(data.len() as u64));
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(body_error(&error)))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(Some(mut trailers)) => {
                hop::keep_allowed_trailers(&mut trailers);
                self.ended = true;
                if trailers.is_empty() {
                    Poll::Ready(None)
                } else {
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(body_error(&error)))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended || self.recv.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.remaining {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::new(),
        }
    }
}

fn body_error(error: &h2::Error) -> BodyError {
    match (error.reason(), error.get_io()) {
        (Some(reason), _) => BodyError::Reset(reason),
        (None, Some(io)) => BodyError::Io(io.kind()),
        (None, None) => BodyError::Incomplete,
    }
}

/// Why sending stopped early.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The peer reset the stream or the connection failed.
    Peer,
    /// The body that was to be sent failed.
    Body(BodyError),
    /// The peer gave no window for too long.
    Timeout,
}

/// Sends a body on a stream.
pub(super) struct H2Upload {
    stream: SendStream<Bytes>,
    body: Body,
    pending: Bytes,
    writing: Patience,
    pace: Pace,
    done: bool,
}

impl H2Upload {
    pub(super) fn new(stream: SendStream<Bytes>, body: Body, pace: Pace) -> Self {
        H2Upload { stream, body, pending: Bytes::new(), writing: Patience::default(), pace, done: false }
    }

    /// Goes on as far as possible; ready when all is handed to h2, or when it failed (the stream is then reset).
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        let polled = self.poll_inner(cx);
        match &polled {
            Poll::Ready(Ok(())) => self.done = true,
            Poll::Ready(Err(UploadError::Body(_))) => self.reset(Reason::INTERNAL_ERROR),
            Poll::Ready(Err(UploadError::Peer | UploadError::Timeout)) => self.reset(Reason::CANCEL),
            Poll::Pending => {}
        }
        polled
    }

    fn reset(&mut self, reason: Reason) {
        self.done = true;
        self.stream.send_reset(reason);
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        let failed = |_| UploadError::Peer;
        loop {
            if !self.pending.is_empty() {
                let room = ready!(self.poll_room(cx))?;
                let piece = owned(self.pending.split_to(room.min(self.pending.len())));
                let last = self.pending.is_empty() && self.body.has_ended();
                self.stream.send_data(piece, last).map_err(failed)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.pending = data,
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            hop::keep_allowed_trailers(&mut trailers);
                            return Poll::Ready(self.stream.send_trailers(trailers).map_err(failed));
                        }
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(UploadError::Body(error))),
                Poll::Ready(None) => {
                    return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(failed));
                }
                Poll::Pending => {
                    return match self.stream.poll_reset(cx) {
                        Poll::Ready(_) => Poll::Ready(Err(UploadError::Peer)),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Waits for room in the window. Meanwhile what belongs to the body goes on.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, UploadError>> {
        self.stream.reserve_capacity(self.pending.len().min(RESERVE));
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                self.writing.rest();
                return Poll::Ready(Ok(room));
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(UploadError::Peer)),
                Poll::Pending => {
                    self.body.poll_progress(cx);
                    ready!(self.writing.poll_exhausted(cx, self.pace));
                    return Poll::Ready(Err(UploadError::Timeout));
                }
            }
        }
    }
}

/// What h2 queues for a peer that does not read is counted by its length, but holds the buffer that it was read into.
fn owned(piece: Bytes) -> Bytes {
    if piece.len() <= SMALL { Bytes::copy_from_slice(&piece) } else { piece }
}

impl Drop for H2Upload {
    fn drop(&mut self) {
        if !self.done {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}
