//! What an undeclared connection speaks, by its first bytes, without taking them.
//!
//! Invariant: silence means TCP after a short wait, so server-first protocols work; a port once seen as HTTP is never taken
//! for TCP because its client is slow (PAINS P19).

use std::{io, time::Duration};

use rustls::server::Acceptor;
use tokio::net::TcpStream;

/// How long silence lasts before it means TCP.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

/// How long a client that speaks TLS may take for its first message.
const HELLO: Duration = Duration::from_secs(10);

/// Longest ClientHello that is looked at.
const MAX_HELLO: usize = 16 * 1024;

const BEGINNINGS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
    b"PRI * HTTP/2.0",
];

/// Whether a connection begins as HTTP does. `patience` is how long its first bytes are waited for.
pub(crate) async fn is_http(stream: &TcpStream, patience: Duration) -> io::Result<bool> {
    let look = async {
        let mut bytes = [0_u8; 16];
        let mut seen = 0;
        loop {
            let count = stream.peek(&mut bytes).await?;
            match judge(&bytes[..count]) {
                Some(verdict) => return Ok(verdict),
                None if count == seen => tokio::time::sleep(Duration::from_millis(1)).await,
                None => seen = count,
            }
        }
    };
    tokio::time::timeout(patience, look).await.unwrap_or(Ok(false))
}

/// `None`: more bytes are needed.
fn judge(bytes: &[u8]) -> Option<bool> {
    if bytes.is_empty() {
        // The peer closed its side; there is nothing that HTTP could serve.
        return Some(false);
    }
    if BEGINNINGS.iter().any(|beginning| bytes.starts_with(beginning)) {
        return Some(true);
    }
    let may_become = BEGINNINGS.iter().any(|beginning| beginning.starts_with(bytes));
    (!may_become).then_some(false)
}

/// The server name of a TLS ClientHello, without taking it. `None`: it is not TLS, or has no name, or takes too long.
pub(crate) async fn server_name(stream: &TcpStream) -> io::Result<Option<String>> {
    let look = async {
        let mut bytes = vec![0_u8; 2048];
        let mut seen = 0;
        loop {
            let count = stream.peek(&mut bytes).await?;
            if count == 0 {
                return Ok(None);
            }
            let mut acceptor = Acceptor::default();
            let read = acceptor.read_tls(&mut &bytes[..count]);
            match (read, acceptor.accept()) {
                (Err(_), _) | (_, Err(_)) => return Ok(None),
                (_, Ok(Some(accepted))) => {
                    return Ok(accepted.client_hello().server_name().map(str::to_owned));
                }
                (_, Ok(None)) if count == bytes.len() && count < MAX_HELLO => bytes.resize(count * 2, 0),
                (_, Ok(None)) if count >= MAX_HELLO => return Ok(None),
                (_, Ok(None)) if count == seen => tokio::time::sleep(Duration::from_millis(1)).await,
                (_, Ok(None)) => seen = count,
            }
        }
    };
    tokio::time::timeout(HELLO, look).await.unwrap_or(Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_judged_as_soon_as_it_can_be() {
        assert_eq!(judge(b"GE"), None);
        assert_eq!(judge(b"GET "), Some(true));
        assert_eq!(judge(b"PRI * HTTP/2.0\r\n"), Some(true));
        assert_eq!(judge(b"PR"), None);
        assert_eq!(judge(b"\x16\x03\x01"), Some(false));
        assert_eq!(judge(b"*1\r\n"), Some(false));
        assert_eq!(judge(b""), Some(false));
    }
}
