//! A connection's byte stream with what was read ahead and what is still to be written.
//!
//! Invariants: a read happens only when the caller has use for bytes; what waits to be written is bounded by the caller,
//! who asks [`Outgoing::is_full`]; a head and the data behind it leave in one call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::http::buffers::{self, CHUNK};
use crate::http::timer::{Pace, Patience};

/// Data up to this size is copied behind the head; larger pieces are written from where they are.
const COPY_MAX: usize = 4 * 1024;
/// No more data is taken once this much waits.
const HIGH_WATER: usize = 64 * 1024;
const MAX_SLICES: usize = 16;

/// Bytes that wait to be written.
#[derive(Default)]
pub(super) struct Outgoing {
    queue: VecDeque<Bytes>,
    queued: usize,
    flat: BytesMut,
}

impl Outgoing {
    /// The tail, to encode small things into.
    pub(super) fn flat(&mut self) -> &mut BytesMut {
        if self.flat.capacity() == 0 {
            self.flat = buffers::take();
        }
        &mut self.flat
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= COPY_MAX {
            self.flat().extend_from_slice(&data);
            return;
        }
        if !self.flat.is_empty() {
            let sealed = self.flat.split().freeze();
            self.queued += sealed.len();
            self.queue.push_back(sealed);
        }
        self.queued += data.len();
        self.queue.push_back(data);
    }

    pub(super) fn len(&self) -> usize {
        self.queued + self.flat.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= HIGH_WATER
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(front) = self.queue.front_mut() {
            let here = n.min(front.len());
            front.advance(here);
            self.queued -= here;
            n -= here;
            if !front.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
        self.flat.advance(n);
    }

    fn poll_write_some<IO: AsyncWrite + Unpin>(
        &self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.queue.is_empty() {
            return Pin::new(io).poll_write(cx, &self.flat);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for (slot, data) in slices.iter_mut().zip(self.queue.iter().map(|b| &b[..]).chain([&self.flat[..]])) {
            *slot = IoSlice::new(data);
            used += 1;
        }
        Pin::new(io).poll_write_vectored(cx, &slices[..used])
    }
}

pub(super) struct Pipe<IO> {
    io: Option<IO>,
    pub(super) input: BytesMut,
    pub(super) out: Outgoing,
    pub(super) eof: bool,
    flush: bool,
    pace: Pace,
    writing: Patience,
    /// Any byte was written since this was last cleared.
    pub(super) wrote: bool,
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Pipe<IO> {
    pub(super) fn new(io: IO, input: BytesMut, pace: Pace) -> Self {
        Pipe {
            io: Some(io),
            input,
            out: Outgoing::default(),
            eof: false,
            flush: false,
            pace,
            writing: Patience::default(),
            wrote: false,
        }
    }

    /// Reads once. `Ok(0)` is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = self.io.as_mut() else { return Poll::Ready(Err(gone())) };
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.input.is_empty() {
            if !self.input.try_reclaim(CHUNK) {
                self.input = buffers::take();
            }
        } else if self.input.capacity() - self.input.len() < CHUNK / 4 {
            self.input.reserve(CHUNK);
        }
        let read = poll_read_buf(Pin::new(io), cx, &mut self.input);
        match read {
            Poll::Ready(Ok(0)) => self.eof = true,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) | Poll::Pending => self.rest(),
        }
        read
    }

    /// Gives the read buffer back when nothing is in it.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            buffers::give(std::mem::take(&mut self.input));
        }
    }

    /// Writes everything that waits. A peer that takes too little for too long is an error of kind `TimedOut`.
    pub(super) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.poll_write_all(cx);
        if written.is_ready() {
            self.writing.rest();
            return written;
        }
        if self.writing.poll_exhausted(cx, self.pace).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = self.io.as_mut() else { return Poll::Ready(Err(gone())) };
        while !self.out.is_empty() {
            let n = ready!(self.out.poll_write_some(io, cx))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
            self.writing.moved(n);
            self.wrote = true;
            self.flush = true;
        }
        if self.out.flat.capacity() > 0 {
            buffers::give(std::mem::take(&mut self.out.flat));
        }
        if self.flush {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing is left to write, in TLS's own buffer neither: what is written and not flushed waits there.
    pub(super) fn is_written(&self) -> bool {
        self.out.is_empty() && !self.flush
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.io.as_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Lets go of the byte stream and of every buffer.
    pub(super) fn close(&mut self) {
        self.io = None;
        self.input = BytesMut::new();
        self.out = Outgoing::default();
        self.writing.rest();
    }

    /// The byte stream and what was read ahead, for a tunnel.
    pub(super) fn take_io(&mut self) -> Option<(IO, Bytes)> {
        let io = self.io.take()?;
        Some((io, std::mem::take(&mut self.input).freeze()))
    }
}
