//! A body or a tunnel that holds something for as long as it lasts, and that may be ended before its end.
//!
//! Invariant: what is held (a place among a limited number, a count of what is in flight) goes with the last byte and not with
//! the response's head, for a stream and a tunnel as for any other body.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::{Body, BodyError, BodyStream, Upgraded};

/// Ready when it must end.
type Until = Pin<Box<dyn Future<Output = ()>>>;

struct Guarded<T, G> {
    inner: T,
    until: Option<(Until, BodyError)>,
    _guard: G,
}

impl<T, G> Unpin for Guarded<T, G> {}

/// Keeps a guard for as long as a body, or the tunnel that it became, lasts.
pub(crate) fn holding<G: 'static>(body: Body, guard: G) -> Body {
    guarded(body, None, guard)
}

/// Ends a body with `error`, and a tunnel with an I/O error, as soon as `until` is ready.
pub(crate) fn ending(body: Body, until: Until, error: BodyError) -> Body {
    guarded(body, Some((until, error)), ())
}

fn guarded<G: 'static>(body: Body, until: Option<(Until, BodyError)>, guard: G) -> Body {
    if is_over(&body) {
        return body;
    }
    match body.into_upgraded() {
        Ok(Upgraded { io, read_ahead }) => {
            Body::upgraded(Upgraded { io: Box::new(Guarded { inner: io, until, _guard: guard }), read_ahead })
        }
        Err(body) => Body::boxed(Guarded { inner: body, until, _guard: guard }),
    }
}

/// Nothing is to come that is not here already.
pub(crate) fn is_over(body: &Body) -> bool {
    !body.is_upgraded() && (http_body::Body::is_end_stream(body) || body.as_full().is_some())
}

impl<T, G> Guarded<T, G> {
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        let (until, error) = self.until.as_mut()?;
        if until.as_mut().poll(cx).is_pending() {
            return None;
        }
        let error = error.clone();
        self.until = Some((Box::pin(std::future::ready(())), error.clone()));
        Some(error)
    }
}

impl<G> BodyStream for Guarded<Body, G> {
    fn poll_progress(mut self: Pin<&mut Self>, cx: &mut Context<'_>) {
        self.inner.poll_progress(cx);
    }
}

impl<G> http_body::Body for Guarded<Body, G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.poll_ended(cx) {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Pin::new(&mut this.inner).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<T: AsyncRead + Unpin, G> AsyncRead for Guarded<T, G> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_ended(cx) {
            Some(error) => Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, error))),
            None => Pin::new(&mut this.inner).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin, G> AsyncWrite for Guarded<T, G> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
