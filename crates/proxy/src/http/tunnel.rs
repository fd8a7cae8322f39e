//! Copies bytes both ways between two connections, for upgrades, CONNECT and plain TCP.
//!
//! Invariants: each direction ends on its own (half-close is passed on, after what was read before it); at most one buffer
//! each way, and none while quiet; a tunnel in which nothing moves ends.
//!
//! Must not know: what the bytes mean.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::buffers;
use super::drain::Drain;
use super::timer::Timer;

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub struct TunnelLimits {
    /// While both directions are open; 1 h.
    pub idle: Duration,
    /// While one direction is closed; 5 min.
    pub half_closed_idle: Duration,
    /// Once the drain has started; 5 s.
    pub drain_idle: Duration,
}

impl Default for TunnelLimits {
    fn default() -> Self {
        TunnelLimits {
            idle: Duration::from_secs(3600),
            half_closed_idle: Duration::from_secs(300),
            drain_idle: Duration::from_secs(5),
        }
    }
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelReason {
    /// Both directions were closed.
    Closed,
    /// Nothing moved for too long.
    Idle,
    /// Nothing moved for too long after the drain began.
    Drained,
    /// A read from, or a write to, `a` failed.
    FailedA(io::ErrorKind),
    /// A read from, or a write to, `b` failed.
    FailedB(io::ErrorKind),
}

/// The bytes that a tunnel has written so far, for whoever watches it meanwhile.
#[derive(Debug, Default)]
pub struct Moved {
    /// To `b`.
    pub a_to_b: Cell<u64>,
    /// To `a`.
    pub b_to_a: Cell<u64>,
}

/// What a tunnel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Why it ended.
    pub reason: TunnelReason,
    /// Bytes written to `b`.
    pub a_to_b: u64,
    /// Bytes written to `a`.
    pub b_to_a: u64,
}

/// One direction.
struct Way<'a> {
    buffer: BytesMut,
    eof: bool,
    closed: bool,
    flush: bool,
    bytes: &'a Cell<u64>,
}

enum WayError {
    Read(io::Error),
    Write(io::Error),
}

impl<'a> Way<'a> {
    fn new(ahead: Bytes, bytes: &'a Cell<u64>) -> Self {
        Way { buffer: BytesMut::from(ahead), eof: false, closed: false, flush: false, bytes }
    }

    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), WayError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.closed {
            while !self.buffer.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer)).map_err(WayError::Write)?;
                if n == 0 {
                    return Poll::Ready(Err(WayError::Write(io::ErrorKind::WriteZero.into())));
                }
                self.buffer.advance(n);
                self.bytes.set(self.bytes.get() + n as u64);
                self.flush = true;
            }
            if self.eof {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(WayError::Write)?;
                self.closed = true;
                break;
            }
            if !self.buffer.try_reclaim(buffers::CHUNK) {
                self.buffer = buffers::take();
            }
            match poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(WayError::Read(error))),
                Poll::Pending => {
                    buffers::give(std::mem::take(&mut self.buffer));
                    if self.flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(WayError::Write)?;
                        self.flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.buffer.capacity() > 0 {
            buffers::give(std::mem::take(&mut self.buffer));
        }
        Poll::Ready(Ok(()))
    }
}

/// Copies between `a` and `b` until both directions have ended. `ahead` is what was already read from `a` and from `b`.
pub async fn copy_bidirectional<A, B>(
    a: &mut A,
    b: &mut B,
    ahead: (Bytes, Bytes),
    limits: &TunnelLimits,
    mut drain: Drain,
    moved: &Moved,
) -> TunnelEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Way::new(ahead.0, &moved.a_to_b);
    let mut back = Way::new(ahead.1, &moved.b_to_a);
    let mut timer = Timer::default();
    let mut last = None;
    let reason = poll_fn(|cx| {
        match there.poll(a, b, cx) {
            Poll::Ready(Err(WayError::Read(error))) => {
                return Poll::Ready(TunnelReason::FailedA(error.kind()));
            }
            Poll::Ready(Err(WayError::Write(error))) => {
                return Poll::Ready(TunnelReason::FailedB(error.kind()));
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match back.poll(b, a, cx) {
            Poll::Ready(Err(WayError::Read(error))) => {
                return Poll::Ready(TunnelReason::FailedB(error.kind()));
            }
            Poll::Ready(Err(WayError::Write(error))) => {
                return Poll::Ready(TunnelReason::FailedA(error.kind()));
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if there.closed && back.closed {
            return Poll::Ready(TunnelReason::Closed);
        }
        let draining = drain.poll_started(cx).is_ready();
        let state = (there.bytes.get(), back.bytes.get(), there.eof, back.eof, draining);
        if last != Some(state) {
            last = Some(state);
            timer.set(match (draining, there.eof || back.eof) {
                (true, _) => limits.drain_idle,
                (false, true) => limits.half_closed_idle,
                (false, false) => limits.idle,
            });
        }
        ready!(timer.poll(cx));
        Poll::Ready(if draining { TunnelReason::Drained } else { TunnelReason::Idle })
    })
    .await;
    TunnelEnd { reason, a_to_b: moved.a_to_b.get(), b_to_a: moved.b_to_a.get() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::drain::DrainTrigger;
    use super::*;

    fn start(drain: Drain) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<TunnelEnd>) {
        let ((client, mut a), (server, mut b)) = (duplex(1024), duplex(1024));
        let task = tokio::task::spawn_local(async move {
            let ahead = (Bytes::new(), Bytes::new());
            let moved = Moved::default();
            copy_bidirectional(&mut a, &mut b, ahead, &TunnelLimits::default(), drain, &moved).await
        });
        (client, server, task)
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_server_may_speak_first_and_each_half_closes_alone() {
        let (mut client, mut server, task) = start(Drain::never());
        server.write_all(b"220 ready").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "220 ready");
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        got.clear();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "bye");
        let end = task.await.unwrap();
        assert_eq!((end.reason, end.a_to_b, end.b_to_a), (TunnelReason::Closed, 3, 9));
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_receiver_that_stops_bounds_what_is_taken() {
        let (mut client, _server, _task) = start(Drain::never());
        let mut sent = 0;
        while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), client.write(&[0; 512])).await {
            sent += n.unwrap();
        }
        assert!(sent <= 2 * buffers::CHUNK, "{sent} bytes were taken");
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_quiet_tunnel_ends_and_sooner_when_draining() {
        let began = tokio::time::Instant::now();
        let (_client, _server, task) = start(Drain::never());
        assert_eq!(task.await.unwrap().reason, TunnelReason::Idle);
        assert_eq!(began.elapsed().as_secs(), 3600);
        let trigger = DrainTrigger::new();
        let (mut client, mut server, task) = start(trigger.handle());
        let began = tokio::time::Instant::now();
        trigger.start();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert_eq!(task.await.unwrap().reason, TunnelReason::Drained);
        assert_eq!(began.elapsed().as_secs(), 14);
    }
}
