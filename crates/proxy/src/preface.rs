//! What two proxies tell each other beside the application's bytes: names on the handshake, metadata once per
//! connection, and headers on each hop (DESIGN: between two proxies; ADR 0004).
//!
//! Invariant: metadata is for telemetry and timers only, never for authorization; hop headers are believed only from a
//! verified peer and are removed at every edge.

use std::{io, sync::Arc, time::Duration};

use http::HeaderMap;
use leno_model::{Host, Millis, Port};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// ALPN: HTTP/1.1 inside.
pub(crate) const ALPN_H1: &[u8] = b"leno-h1";
/// ALPN: HTTP/2 inside.
pub(crate) const ALPN_H2: &[u8] = b"leno-h2";
/// ALPN: opaque bytes inside.
pub(crate) const ALPN_TCP: &[u8] = b"leno-tcp";

/// Milliseconds left until the caller gives up.
pub(crate) const DEADLINE: &str = "x-leno-deadline";
/// Microseconds that the server's proxy added, by step.
pub(crate) const OVERHEAD: &str = "x-leno-overhead";
/// On a response: the application never saw the request.
pub(crate) const NOT_DELIVERED: &str = "x-leno-not-delivered";
/// On a response: the application's connection broke before it answered; it may have seen the request.
pub(crate) const BROKEN: &str = "x-leno-broken";
/// On a response: the server's proxy drains; the next request had better go elsewhere.
pub(crate) const LEAVING: &str = "x-leno-leaving";

const HOP_HEADERS: [&str; 5] = [DEADLINE, OVERHEAD, NOT_DELIVERED, BROKEN, LEAVING];

const MAGIC: [u8; 4] = *b"LENO";
const MAX_PREFACE: usize = 4096;

/// What a client's proxy says of itself, once per connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preface {
    /// The caller's workload (the Deployment's name).
    pub(crate) workload: Arc<str>,
    /// Its namespace.
    pub(crate) namespace: Arc<str>,
    /// Canonical service and revision.
    pub(crate) canonical: (Arc<str>, Arc<str>),
    /// `app` and `version` labels.
    pub(crate) app: (Arc<str>, Arc<str>),
    /// Its cluster.
    pub(crate) cluster: Arc<str>,
    /// Its region and zone.
    pub(crate) place: (Arc<str>, Arc<str>),
    /// It closes the connection itself after this long without use, so the server waits longer (PAINS P2).
    pub(crate) idle: Millis,
}

impl Preface {
    /// The bytes that open a connection.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let length = u16::try_from(body.len().min(MAX_PREFACE)).unwrap_or(0);
        let mut bytes = Vec::with_capacity(6 + body.len());
        bytes.extend(MAGIC);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&body[..usize::from(length)]);
        bytes
    }

    /// Reads it from a verified peer.
    ///
    /// # Errors
    /// When the bytes are not a preface, or the stream fails.
    pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Self> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut head = [0_u8; 6];
        stream.read_exact(&mut head).await?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        if head[..4] != MAGIC || length > MAX_PREFACE {
            return Err(invalid("the peer's preface is malformed"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        serde_json::from_slice(&body).map_err(|_| invalid("the peer's preface is malformed"))
    }
}

/// The name on the handshake: `outbound_.PORT_._.HOST` (CONTRACTS section 7).
pub(crate) fn sni(host: &Host, port: Port) -> String {
    format!("outbound_.{port}_._.{host}")
}

/// The same, and which pod of the service it is for: a gateway between networks, which chooses nothing, asks for it. One whose name
/// is too long for DNS, or has dots, is not named.
pub(crate) fn sni_of_pod(host: &Host, port: Port, pod: &str) -> String {
    let name = format!("outbound_.{port}_.{pod}_.{host}");
    let fits = pod.len() < 63 && !pod.contains('.') && name.len() <= 253;
    if fits { name } else { sni(host, port) }
}

/// What [`sni`] or [`sni_of_pod`] say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Called<'n> {
    pub(crate) port: Port,
    pub(crate) host: &'n str,
    /// The pod of the service; `None`: any.
    pub(crate) pod: Option<&'n str>,
}

/// Reads them back.
pub(crate) fn parse_sni(sni: &str) -> Option<Called<'_>> {
    let rest = sni.strip_prefix("outbound_.")?;
    let (port, rest) = rest.split_once("_.")?;
    let (pod, host) = rest.split_once("_.")?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let pod = Some(pod).filter(|pod| !pod.is_empty());
    (!host.is_empty()).then_some(Called { port, host, pod })
}

/// Removes what only a verified peer may say. Called at every edge.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in HOP_HEADERS {
        headers.remove(name);
    }
}

/// How long the caller will still wait, as its proxy says.
pub(crate) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(DEADLINE)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preface() -> Preface {
        Preface {
            workload: "reviews-v1".into(),
            namespace: "default".into(),
            canonical: ("reviews".into(), "v1".into()),
            app: ("reviews".into(), "v1".into()),
            cluster: "west".into(),
            place: ("us-west-2".into(), "us-west-2a".into()),
            idle: Millis(60_000),
        }
    }

    #[tokio::test]
    async fn a_preface_survives_the_connection() {
        let bytes = preface().encode();
        assert_eq!(Preface::read(&mut bytes.as_slice()).await.unwrap(), preface());
        for cut in 0..bytes.len() {
            assert!(Preface::read(&mut &bytes[..cut]).await.is_err());
        }
    }

    #[test]
    fn a_handshake_name_tells_port_and_host() {
        let name = sni(&"reviews.default.svc.cluster.local".into(), 9080);
        assert_eq!(name, "outbound_.9080_._.reviews.default.svc.cluster.local");
        let host = "reviews.default.svc.cluster.local";
        assert_eq!(parse_sni(&name), Some(Called { port: 9080, host, pod: None }));
        for bad in ["", "outbound_.x_._.a", "outbound_.0_._.a", "outbound_.80_._.", "reviews"] {
            assert_eq!(parse_sni(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_handshake_name_tells_the_pod_where_dns_allows() {
        let host = Host::from("a.b");
        let name = sni_of_pod(&host, 80, "reviews-v1-0");
        assert_eq!(name, "outbound_.80_.reviews-v1-0_.a.b");
        assert_eq!(parse_sni(&name), Some(Called { port: 80, host: "a.b", pod: Some("reviews-v1-0") }));
        for too_much in ["reviews.v1", &"x".repeat(63)] {
            assert_eq!(sni_of_pod(&host, 80, too_much), sni(&host, 80));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_preface_and_no_name_panic(
            damage in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..6),
            name in "(outbound_)?[._a-z0-9]{0,40}",
        ) {
            let mut bytes = preface().encode();
            for (at, byte) in damage {
                let length = bytes.len();
                bytes[at % length] = byte;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(Preface::read(&mut bytes.as_slice()));
            if let Some(called) = parse_sni(&name) {
                proptest::prop_assert!(called.port > 0 && !called.host.is_empty());
                let host = Host::from(called.host);
                let again = match called.pod {
                    Some(pod) => sni_of_pod(&host, called.port, pod),
                    None => sni(&host, called.port),
                };
                let dotted = called.pod.is_some_and(|pod| pod.contains('.'));
                let read = parse_sni(&again);
                proptest::prop_assert_eq!(read, Some(Called { pod: called.pod.filter(|_| !dotted), ..called }));
            }
        }
    }
}
