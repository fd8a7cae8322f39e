//! One call, as a client of each kind makes it: HTTP/1.1, gRPC's HTTP/2, bytes, a TLS handshake.
//!
//! Invariant: a call ends, at the latest with its patience. What is sent is what the case says, byte for byte.
//! Must not know: what should come of it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use leno_proxy::{
    bootstrap::{HTTP_PROXY_PORT, OUTBOUND_PORT},
    proxy_protocol::{Dialled, encode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::{
    app::{CASE, DO, GREETING, SEEN, Seen},
    trusting,
};

/// Largest answer.
const LARGEST: usize = 1 << 20;

/// How a call gets to what it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// Through the caller's proxy, to an address that was dialled.
    Dialled { proxy: IpAddr, to: SocketAddr },
    /// Through the caller's proxy, which is told a name (`HTTP_PROXY`).
    Named { proxy: IpAddr },
    /// Straight there.
    Straight { to: SocketAddr, from: IpAddr },
}

/// A request, as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) case: u64,
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The name that the client asks for, where it speaks TLS.
    pub(crate) tls: Option<String>,
    /// What the application is told to do.
    pub(crate) told: Option<String>,
    pub(crate) patience: Duration,
}

/// An answer to a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Repeated ones joined with `,`.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// What reached the application, when one answered.
    pub(crate) seen: Option<Seen>,
    pub(crate) elapsed: Duration,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Answered(Box<Answer>),
    /// The connection was closed without an answer.
    Closed(String),
    /// There was no answer for so long.
    Waited(Duration),
}

impl Ended {
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Closed(_) | Self::Waited(_) => None,
        }
    }

    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.answer().and_then(|answer| answer.seen.as_ref())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => write!(f, "{} {}", answer.status, answer.body.trim()),
            Self::Closed(why) => write!(f, "closed: {why}"),
            Self::Waited(time) => write!(f, "no answer in {time:?}"),
        }
    }
}

/// Sends a request and takes its answer.
pub(crate) async fn http(way: Way, call: &Call) -> Ended {
    let began = Instant::now();
    let exchange = Box::pin(exchange(way, call));
    match tokio::time::timeout(call.patience, exchange).await {
        Ok(Ok(mut answer)) => {
            answer.elapsed = began.elapsed();
            Ended::Answered(Box::new(answer))
        }
        Ok(Err(error)) => Ended::Closed(error.to_string()),
        Err(_) => Ended::Waited(began.elapsed()),
    }
}

async fn exchange(way: Way, call: &Call) -> io::Result<Answer> {
    let stream = open(way).await?;
    match &call.tls {
        None => converse(way, call, stream).await,
        Some(name) => {
            let name = rustls::pki_types::ServerName::try_from(name.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(trusting::anybody()).connect(name, stream).await?;
            converse(way, call, stream).await
        }
    }
}

async fn converse(
    way: Way,
    call: &Call,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<Answer> {
    let io = TokioIo::new(stream);
    let grpc = call
        .headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.starts_with("application/grpc"));
    let absolute = grpc || matches!(way, Way::Named { .. });
    let request = request(call, absolute).map_err(io::Error::other)?;
    let response = if grpc {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    read(response.map_err(io::Error::other)?).await
}

fn request(call: &Call, absolute: bool) -> http::Result<Request<Empty<Bytes>>> {
    let uri = if absolute { format!("http://{}{}", call.authority, call.path) } else { call.path.clone() };
    let mut request = Request::builder().method(call.method.as_str()).uri(uri).header(CASE, call.case);
    if !absolute || call.headers.iter().all(|(name, _)| name != "content-type") {
        request = request.header("host", &call.authority);
    }
    if let Some(told) = &call.told {
        request = request.header(DO, told);
    }
    for (name, value) in call.headers.iter().filter(|(name, _)| name != "host") {
        request = request.header(name, value);
    }
    request.body(Empty::new())
}

async fn read(response: Response<Incoming>) -> io::Result<Answer> {
    let (parts, body) = response.into_parts();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|known| *known = format!("{known},{value}"))
            .or_insert_with(|| value.into_owned());
    }
    let body = Limited::new(body, LARGEST).collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer {
        status: parts.status.as_u16(),
        seen: headers.get(SEEN).map(|text| serde_json::from_str(text).unwrap()),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        elapsed: Duration::ZERO,
    })
}

/// Opens a connection, speaks first (a greeting, or a handshake for a name), and takes what comes.
pub(crate) async fn bytes(way: Way, case: u64, sni: Option<&str>, patience: Duration) -> Ended {
    let began = Instant::now();
    let exchange = async {
        let mut stream = open(way).await?;
        match sni {
            None => stream.write_all(format!("{GREETING}{case}\n").as_bytes()).await?,
            Some(name) => stream.write_all(&hello(name)).await?,
        }
        let mut text = String::new();
        let read = (&mut stream).take(LARGEST as u64).read_to_string(&mut text).await;
        if text.is_empty() {
            read?;
        }
        Ok::<_, io::Error>(text)
    };
    match tokio::time::timeout(patience, exchange).await {
        Ok(Ok(text)) => match serde_json::from_str(text.trim()) {
            Ok(seen) => Ended::Answered(Box::new(Answer {
                seen: Some(seen),
                elapsed: began.elapsed(),
                ..Answer::default()
            })),
            Err(_) => Ended::Closed(format!("after {text:?}")),
        },
        Ok(Err(error)) => Ended::Closed(error.to_string()),
        Err(_) => Ended::Waited(began.elapsed()),
    }
}

/// The first bytes of a TLS client that asks for a name.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn open(way: Way) -> io::Result<TcpStream> {
    match way {
        Way::Dialled { proxy, to } => {
            let mut stream = TcpStream::connect((proxy, OUTBOUND_PORT)).await?;
            let dialled = Dialled { source: SocketAddr::new(proxy, 1), destination: to };
            stream.write_all(&encode(dialled)).await?;
            Ok(stream)
        }
        Way::Named { proxy } => TcpStream::connect((proxy, HTTP_PROXY_PORT)).await,
        Way::Straight { to, from } => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(from.to_canonical(), 0))?;
            socket.connect(to).await
        }
    }
}
