//! HTTP/2 over a connection that the caller dialled, TLS and all.
//!
//! Invariant: one connection; when it is gone the channel fails, and whoever owns it dials again.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

/// A channel over one connection.
pub async fn channel<IO>(connection: IO) -> Result<Channel, tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Endpoint::from_static("http://control.leno.internal")
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .connect_with_connector(Once(Some(connection)))
        .await
}

/// Yields its connection to the first who asks.
struct Once<IO>(Option<IO>);

impl<IO> Service<Uri> for Once<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = TokioIo<IO>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<IO>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
