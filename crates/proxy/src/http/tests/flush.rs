//! A byte stream that holds what it was given until it is flushed, as TLS does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

#[tokio::test(start_paused = true)]
async fn an_upload_is_not_done_while_tls_has_not_flushed_it() {
    locally(async {
        let (near, mut far) = tokio::io::duplex(1024);
        let client = H1Client::new(Sealing { io: near, sealed: Vec::new() }, Rc::default());
        let serving = async {
            let mut got = vec![0; 20_000];
            far.read_exact(&mut got).await.unwrap();
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        };
        let sending = client.send(post("/", Body::from(Bytes::from(vec![b'x'; 20_000]))));
        let (response, ()) =
            tokio::time::timeout(Duration::from_secs(1), async { tokio::join!(sending, serving) })
                .await
                .expect("what TLS holds is written");
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    })
    .await;
}

/// As TLS does, it takes whatever it is given, and writes it when it is flushed.
struct Sealing {
    io: DuplexStream,
    sealed: Vec<u8>,
}

impl AsyncRead for Sealing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Sealing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, plain: &[u8]) -> Poll<io::Result<usize>> {
        self.sealed.extend_from_slice(plain);
        Poll::Ready(Ok(plain.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Sealing { io, sealed } = &mut *self;
        while !sealed.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, sealed))?;
            sealed.drain(..written);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
