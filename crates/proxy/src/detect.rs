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

/// Longest pause between two looks at a beginning that is not complete.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Pauses between looks: bytes that are only looked at keep a socket ready, so there is nothing to wait on but time. The first
/// are short, because the rest of a beginning follows at once; they grow, so that one who sends no more costs little.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(Duration::from_millis(1))
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

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
        let mut pauses = Pauses::default();
        loop {
            let count = stream.peek(&mut bytes).await?;
            match judge(&bytes[..count]) {
                Some(verdict) => return Ok(verdict),
                None => tokio::time::sleep(pauses.next()).await,
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
        let mut pauses = Pauses::default();
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
                (_, Ok(None)) => tokio::time::sleep(pauses.next()).await,
            }
        }
    };
    tokio::time::timeout(HELLO, look).await.unwrap_or(Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_that_is_never_completed_is_looked_at_a_bounded_number_of_times() {
        let mut pauses = Pauses::default();
        let mut waited = Duration::ZERO;
        let looks = std::iter::from_fn(|| {
            waited += pauses.next();
            (waited < HELLO).then_some(())
        });
        assert!(looks.count() <= 110);
    }

    #[tokio::test]
    async fn a_hello_in_pieces_is_read_and_a_stranger_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hello = client_hello("shop.test");
        let pieces = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for piece in hello.chunks(hello.len().div_ceil(3)) {
                tokio::io::AsyncWriteExt::write_all(&mut stream, piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream
        });
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(server_name(&stream).await.unwrap().as_deref(), Some("shop.test"));
        drop(pieces.await);
        let mut stranger = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(server_name(&stream).await.unwrap(), None);
    }

    fn client_hello(name: &'static str) -> Vec<u8> {
        let trust = leno_identity::PlainTrust::Unverified;
        let config = leno_identity::plain_client_config(trust, &[], None, &[]).unwrap();
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

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

    proptest::proptest! {
        /// More bytes never change a verdict, or two proxies that read differently would speak differently.
        #[test]
        fn a_verdict_stands(bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..20), known in 0..BEGINNINGS.len() * 2) {
            let start = BEGINNINGS.get(known).copied().unwrap_or_default();
            let bytes = [start, &bytes].concat();
            let mut verdict = None;
            for cut in 1..=bytes.len() {
                let next = judge(&bytes[..cut]);
                proptest::prop_assert!(verdict.is_none() || verdict == next);
                verdict = next;
            }
        }
    }
}
