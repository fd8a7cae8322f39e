//! The application's own probes, asked by the kubelet of the proxy and by the proxy of the application.
//!
//! The kubelet is outside the mesh: under STRICT its plaintext would be refused, and exempting it would exempt everybody on the
//! node. So the injector points its probes here, and the originals come with the bootstrap.
//!
//! Invariants: only the configured probes are asked, at the pod's own address, which is no way into anything that the pod's
//! author did not name; what a probe means (success, redirects, certificates) is what it means to the kubelet.

mod grpc;
mod http;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use tokio::net::{TcpStream, lookup_host};

pub use self::http::{HttpGet, Scheme};

/// A probe as it stood in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Probe {
    /// What is asked.
    pub action: Action,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// For a page.
    HttpGet(HttpGet),
    /// Whether a port takes connections.
    TcpSocket(TcpSocket),
    /// For the state of a service, by gRPC's health protocol.
    Grpc(Grpc),
}

/// A port that must take connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpSocket {
    /// The port.
    pub port: u16,
    /// Another host than the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A service that must be SERVING.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    /// The port.
    pub port: u16,
    /// Its name; empty for the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Why a probe fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{address} does not take connections: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{0}")]
    Answer(String),
}

impl Probe {
    /// Asks the application at `pod`. `agent` is what the kubelet calls itself. `Err` says why the application is not well.
    pub(crate) async fn ask(&self, pod: IpAddr, agent: Option<&str>) -> Result<(), String> {
        let asked = async {
            match &self.action {
                Action::HttpGet(get) => get.ask(pod, agent).await,
                Action::TcpSocket(TcpSocket { port, host }) => {
                    connect(pod, host.as_deref(), *port).await.map(drop)
                }
                Action::Grpc(Grpc { port, service }) => {
                    grpc::ask(connect(pod, None, *port).await?, service.as_deref().unwrap_or_default(), agent)
                        .await
                }
            }
        };
        let answered = tokio::time::timeout(self.timeout, asked).await;
        answered.unwrap_or(Err(Failure::Timeout(self.timeout))).map_err(|failure| failure.to_string())
    }
}

/// A connection to the pod, or to the host that the probe names.
async fn connect(pod: IpAddr, host: Option<&str>, port: u16) -> Result<TcpStream, Failure> {
    let named = host.filter(|host| !host.is_empty());
    let address =
        named.map_or_else(|| SocketAddr::new(pod, port).to_string(), |host| format!("{host}:{port}"));
    let failed = |source| Failure::Connect { address: address.clone(), source };
    let connected = match named {
        None => TcpStream::connect(SocketAddr::new(pod, port)).await,
        Some(host) => {
            let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
            TcpStream::connect(found.as_slice()).await
        }
    };
    connected.map_err(failed)
}

/// The fields of a Kubernetes probe. Those that say when to ask are the kubelet's, who goes on asking us by them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are read only so that no other is taken")]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_get: Option<HttpGet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp_socket: Option<TcpSocket>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grpc: Option<Grpc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    #[serde(default, skip_serializing)]
    initial_delay_seconds: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    period_seconds: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    success_threshold: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    failure_threshold: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    termination_grace_period_seconds: Option<IgnoredAny>,
}

impl TryFrom<Written> for Probe {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let action = match (written.http_get, written.tcp_socket, written.grpc) {
            (Some(get), None, None) => Action::HttpGet(get),
            (None, Some(socket), None) => Action::TcpSocket(socket),
            (None, None, Some(grpc)) => Action::Grpc(grpc),
            _ => return Err("a probe has one of httpGet, tcpSocket and grpc"),
        };
        let seconds = written.timeout_seconds.unwrap_or(1).max(1);
        Ok(Self { action, timeout: Duration::from_secs(seconds.into()) })
    }
}

impl From<Probe> for Written {
    fn from(probe: Probe) -> Self {
        let Probe { action, timeout } = probe;
        let (mut http_get, mut tcp_socket, mut grpc) = (None, None, None);
        match action {
            Action::HttpGet(get) => http_get = Some(get),
            Action::TcpSocket(socket) => tcp_socket = Some(socket),
            Action::Grpc(ask) => grpc = Some(ask),
        }
        Self {
            http_get,
            tcp_socket,
            grpc,
            timeout_seconds: u32::try_from(timeout.as_secs()).ok(),
            initial_delay_seconds: None,
            period_seconds: None,
            success_threshold: None,
            failure_threshold: None,
            termination_grace_period_seconds: None,
        }
    }
}

#[cfg(test)]
mod tests;
