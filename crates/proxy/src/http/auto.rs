//! Tells HTTP/2 with prior knowledge from HTTP/1.1 on a plaintext port.
//!
//! Invariant: what was read to find out is not lost; a client that sends nothing is not waited for without end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::body::{Body, Io};
use super::buffers;
use super::drain::Drain;
use super::h1::serve_h1_from;
use super::h2_server::serve_h2;
use super::settings::{ConnEnd, EndReason, ServerSettings};
use super::timer::Timer;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves HTTP/1.1 or, when the connection begins with its preface, HTTP/2.
pub async fn serve_auto<IO, H>(
    mut io: IO,
    settings: Rc<ServerSettings>,
    handler: Rc<H>,
    mut drain: Drain,
) -> ConnEnd
where
    IO: Io,
    H: AsyncFn(Request<Body>) -> Response<Body> + 'static,
{
    let mut seen = BytesMut::new();
    match sniff(&mut io, &mut seen, &settings, &mut drain).await {
        // Boxed, so that an HTTP/1.1 connection does not hold room for it.
        Ok(true) => Box::pin(serve_h2(Rewound { seen, io }, settings, handler, drain)).await,
        Ok(false) => serve_h1_from(io, seen, settings, handler, drain).await,
        Err(reason) => ConnEnd::new(reason),
    }
}

/// Reads until the first bytes decide.
async fn sniff<IO: Io>(
    io: &mut IO,
    seen: &mut BytesMut,
    settings: &ServerSettings,
    drain: &mut Drain,
) -> Result<bool, EndReason> {
    let mut timer = Timer::default();
    timer.set(settings.first_request_timeout);
    let mut draining = false;
    poll_fn(|cx| {
        loop {
            let n = seen.len().min(PREFACE.len());
            if seen[..n] != PREFACE[..n] {
                return Poll::Ready(Ok(false));
            }
            if n == PREFACE.len() {
                return Poll::Ready(Ok(true));
            }
            if seen.capacity() == 0 {
                *seen = buffers::take();
            }
            match poll_read_buf(Pin::new(&mut *io), cx, seen) {
                Poll::Ready(Ok(0)) if seen.is_empty() => return Poll::Ready(Err(EndReason::ClientClosed)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(EndReason::Disconnected)),
                Poll::Pending => break,
            }
        }
        if seen.is_empty() {
            buffers::give(std::mem::take(seen));
        }
        if !draining && drain.poll_started(cx).is_ready() {
            draining = true;
            timer.set(settings.linger);
        }
        timer.poll(cx).map(|()| Err(if draining { EndReason::Drained } else { EndReason::Idle }))
    })
    .await
}

/// A byte stream that gives again what was read from it.
struct Rewound<IO> {
    seen: BytesMut,
    io: IO,
}

impl<IO: Io> AsyncRead for Rewound<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.seen.len().min(buf.remaining());
        buf.put_slice(&self.seen[..n]);
        self.seen.advance(n);
        if self.seen.is_empty() {
            self.seen = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Io> AsyncWrite for Rewound<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
