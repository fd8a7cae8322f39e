//! A TCP echo, with a banner when the server speaks first.
//!
//! Invariants: half-close works both ways; a stop ends the echo once the peer is silent.
//! Must not know: what the bytes mean.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::graph::App;

const BUFFER: usize = 8 << 10;
/// Silence after which a stopping stand-in closes.
const SILENCE: Duration = Duration::from_millis(200);

pub(super) async fn echo(app: &App, mut stream: TcpStream, banner: Option<&str>) -> io::Result<()> {
    if let Some(banner) = banner {
        stream.write_all(banner.as_bytes()).await?;
    }
    loop {
        // The buffer is there only while there is something to read: idle connections are cheap.
        tokio::select! {
            readable = stream.readable() => readable?,
            () = silence_while_draining(app) => return stream.shutdown().await,
        }
        let mut buffer = vec![0; BUFFER];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

async fn silence_while_draining(app: &App) {
    app.draining.cancelled().await;
    tokio::time::sleep(SILENCE).await;
}
