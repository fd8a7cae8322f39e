//! Asks a control plane or a proxy over its JSON API.
//!
//! Invariant: an answer is bounded in time and size.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

const TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing answers there.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The exchange failed.
    #[error("{address} did not answer")]
    Exchange {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{0} did not answer in {TIMEOUT:?}")]
    Timeout(SocketAddr),
    /// It said no.
    #[error("{address} answered {status}: {text}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// The status.
        status: StatusCode,
        /// The answer.
        text: String,
    },
    /// The answer is no JSON, or too large.
    #[error("the answer of {0} cannot be read")]
    Unreadable(SocketAddr),
}

/// Gets `path` as text.
///
/// # Errors
/// When there is no answer, or one that is no success.
pub async fn get(address: SocketAddr, path: &str) -> Result<Bytes, ApiError> {
    send(address, Method::GET, path).await
}

/// Gets `path` as JSON.
///
/// # Errors
/// As [`get`], and when the answer is no JSON.
pub async fn get_json(address: SocketAddr, path: &str) -> Result<Value, ApiError> {
    let text = get(address, path).await?;
    serde_json::from_slice(&text).map_err(|_| ApiError::Unreadable(address))
}

/// Sends a request without a body.
///
/// # Errors
/// As [`get`].
pub async fn send(address: SocketAddr, method: Method, path: &str) -> Result<Bytes, ApiError> {
    let exchange = Box::pin(exchange(address, method, path));
    timeout(TIMEOUT, exchange).await.unwrap_or(Err(ApiError::Timeout(address)))
}

async fn exchange(address: SocketAddr, method: Method, path: &str) -> Result<Bytes, ApiError> {
    let unreachable = |source| ApiError::Unreachable { address, source };
    let failed = |source| ApiError::Exchange { address, source };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the sender below, or with its peer.
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|_| ApiError::Unreadable(address))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    drop(sender);
    connection.abort();
    let body = body.map_err(|_| ApiError::Unreadable(address))?.to_bytes();
    if status.is_success() {
        Ok(body)
    } else {
        let text = String::from_utf8_lossy(&body).chars().take(500).collect();
        Err(ApiError::Refused { address, status, text })
    }
}
