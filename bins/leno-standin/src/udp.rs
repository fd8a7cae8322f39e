//! Datagrams: a server that says where each came from, and a client.
//!
//! Invariant: the client ends, with or without an answer.
//! Must not know: meshes.

use std::{io::Write as _, net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use tokio::{net::UdpSocket, time::timeout};

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn bind(port: u16) -> anyhow::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(|| format!("UDP port {port}"))
}

/// Answers each datagram with the address that it came from, as long as the process lives.
pub(crate) async fn answer(socket: UdpSocket) {
    let mut datagram = [0; 2048];
    loop {
        // A datagram that cannot be read or answered is lost, as any may be.
        if let Ok((_, from)) = socket.recv_from(&mut datagram).await {
            let _lost = socket.send_to(from.to_string().as_bytes(), from).await;
        }
    }
}

/// One datagram, and the answer printed.
pub(crate) async fn ask(address: &str) -> anyhow::Result<()> {
    let socket = bind(0).await?;
    socket.send_to(b"whence?", address).await.with_context(|| address.to_owned())?;
    let mut answer = [0; 2048];
    let (length, _) = timeout(PATIENCE, socket.recv_from(&mut answer)).await.context("no answer")??;
    writeln!(std::io::stdout(), "{}", String::from_utf8_lossy(&answer[..length]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_is_answered_with_its_source() {
        let server = bind(0).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = tokio::spawn(answer(server));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"x", ("127.0.0.1", port)).await.unwrap();
        let mut answer = [0; 100];
        let (length, _) = timeout(PATIENCE, client.recv_from(&mut answer)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer[..length]), client.local_addr().unwrap().to_string());
        serving.abort();
    }
}
