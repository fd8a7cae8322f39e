//! Probes by gRPC's health protocol: `grpc.health.v1.Health/Check`, whose two messages have one field each.

use ::http::{HeaderValue, Method, Request, Version, header};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Failure;
use crate::forward::attempts::chain;

/// Longest answer that is read.
const MAX_ANSWER: usize = 4096;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks for the state of a service.
pub(super) async fn ask(stream: TcpStream, service: &str, agent: Option<&str>) -> Result<(), Failure> {
    let failed = |error: hyper::Error| Failure::Answer(chain(&error));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request(service, agent)).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(Failure::Answer(format!("status {}", head.status.as_u16())));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| Failure::Answer(format!("the answer cannot be read: {error}")))?;
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .or(head.headers.get("grpc-status"));
        let status = status.and_then(|status| status.to_str().ok()).unwrap_or("none").to_owned();
        if status != "0" {
            return Err(Failure::Answer(format!("grpc-status {status}")));
        }
        match serving_status(&body.to_bytes()) {
            Some(SERVING) => Ok(()),
            Some(other) => Err(Failure::Answer(format!("{service:?} is not serving (state {other})"))),
            None => Err(Failure::Answer("the answer is no HealthCheckResponse".to_owned())),
        }
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answered = &mut exchange => answered,
        ended = &mut connection => {
            ended.map_err(failed)?;
            exchange.await
        }
    }
}

fn request(service: &str, agent: Option<&str>) -> Request<Full<Bytes>> {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    let mut request = Request::new(Full::new(frame.freeze()));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = ::http::Uri::from_static("http://localhost/grpc.health.v1.Health/Check");
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(agent) = agent.and_then(|agent| HeaderValue::try_from(agent).ok()) {
        headers.insert(header::USER_AGENT, agent);
    }
    request
}

/// The state in a frame with a HealthCheckResponse; what is left out is 0.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let message = frame.get(5..).filter(|_| frame.first() == Some(&0))?;
    let [0x08, rest @ ..] = message else { return message.is_empty().then_some(0) };
    let mut value = 0_u64;
    for (position, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * position as u32)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_and_nonsense_is_not() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0), "UNKNOWN is left out");
        for bad in [
            &[][..],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 2, 9, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 8, 0x80],
        ] {
            assert_eq!(serving_status(bad), None, "{bad:?}");
        }
    }
}
