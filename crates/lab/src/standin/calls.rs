//! The calls that a stand-in makes: which its environment names, and making one.
//!
//! Invariants: a call always ends, at its deadline at the latest; whatever goes wrong is a value in its report; what is
//! read of an answer is bounded.
//! Must not know: who asked the stand-in.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tonic::body::Body;

use super::client::{Channel, Client, Endpoint, SendError};
use super::proto::{EchoRequest, EchoResponse, echo_client::EchoClient};
use super::trace_headers::Carried;

/// Most bytes that are read of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// One call that a stand-in makes for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSpec {
    /// The environment variable, or what else names the call.
    pub name: String,
    /// Host and port as written.
    pub target: String,
    /// What is spoken there.
    pub protocol: CallProtocol,
    /// The path of an HTTP call.
    pub path: String,
}

/// What is spoken with a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallProtocol {
    /// HTTP/1.1 GET.
    #[default]
    Http,
    /// The echo service's Unary.
    Grpc,
    /// A line, and whatever comes back.
    Tcp,
}

/// What became of a call.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct CallReport {
    /// The environment variable, or what else names the call.
    pub name: String,
    /// Host and port as written.
    pub target: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// The HTTP status, `grpc N`, or `ok`; empty without an answer.
    pub status: String,
    /// How long it took, all tries together.
    pub ms: f64,
    /// How often it was tried.
    pub tries: u32,
    /// Who answered.
    #[serde(default)]
    pub workload: String,
    /// The version of who answered.
    #[serde(default)]
    pub version: String,
    /// Why it counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The calls that the callee made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallReport>,
}

/// A call with its limits.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// What names it.
    pub name: &'a str,
    /// Host and port.
    pub target: &'a str,
    /// What is spoken.
    pub protocol: CallProtocol,
    /// The path.
    pub path: &'a str,
    /// For each try.
    pub deadline: Duration,
    /// Tries until one succeeds.
    pub tries: u32,
}

/// The calls that an environment names: `*_ADDR`, `*_URL` and `*_HOST`, in the order of the variables.
///
/// `protocol_of` knows what the port of a service speaks; a target that it does not know is called over HTTP.
pub fn from_environment<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    protocol_of: impl Fn(&str, u16) -> Option<CallProtocol>,
) -> Vec<CallSpec> {
    let named = |name: &str| ["_ADDR", "_URL", "_HOST"].iter().any(|end| name.ends_with(end));
    variables
        .into_iter()
        .filter(|(name, value)| named(name) && !value.trim().is_empty())
        .map(|(name, value)| {
            let (target, path) = split_target(value.trim());
            let protocol = host_and_port(&target).and_then(|(host, port)| protocol_of(host, port));
            CallSpec { name: name.to_owned(), target, protocol: protocol.unwrap_or_default(), path }
        })
        .collect()
}

/// What the name, `appProtocol` or number of a service's port suggests.
#[must_use]
pub fn suggested_protocol(port_name: &str, app_protocol: Option<&str>, port: u16) -> CallProtocol {
    let hint = app_protocol.map(|hint| hint.rsplit('/').next().unwrap_or(hint)).unwrap_or(port_name);
    match hint.split('-').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "grpc" => CallProtocol::Grpc,
        "tcp" | "tls" | "redis" | "mongo" | "mysql" | "postgres" | "postgresql" | "kafka" | "amqp" => {
            CallProtocol::Tcp
        }
        "" if matches!(port, 3306 | 5432 | 5672 | 6379 | 9092 | 27017) => CallProtocol::Tcp,
        _ => CallProtocol::Http,
    }
}

/// A URL or `host:port/path` as target and path.
fn split_target(value: &str) -> (String, String) {
    let (scheme, rest) = value.split_once("://").unwrap_or(("", value));
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let default_port = if scheme == "https" { 443 } else { 80 };
    let target = match host_and_port(authority) {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:{default_port}"),
    };
    (target, path.to_owned())
}

fn host_and_port(target: &str) -> Option<(&str, u16)> {
    let (host, port) = target.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

impl Call<'_> {
    /// Makes the call.
    pub async fn make(&self, client: &Client, carried: &Carried) -> CallReport {
        let started = Instant::now();
        let mut report = CallReport::default();
        for attempt in 1..=self.tries.clamp(1, 10) {
            report = self.try_once(client, carried).await;
            report.tries = attempt;
            if report.error.is_none() {
                break;
            }
        }
        report.name = self.name.to_owned();
        report.target = self.target.to_owned();
        report.protocol = self.protocol.as_str().to_owned();
        report.ms = (started.elapsed().as_secs_f64() * 1e5).round() / 100.0;
        report
    }

    async fn try_once(&self, client: &Client, carried: &Carried) -> CallReport {
        let Some((host, port)) = host_and_port(self.target) else {
            return failed("", "the target has no port");
        };
        let to = Endpoint { host: host.to_owned(), port, http2: false };
        let answer = async {
            match self.protocol {
                CallProtocol::Http => self.http(client, to, carried).await,
                CallProtocol::Grpc => self.grpc(client, to, carried).await,
                CallProtocol::Tcp => tcp(client, &to).await,
            }
        };
        let answer = timeout(self.deadline, Box::pin(answer)).await;
        answer.unwrap_or_else(|_| failed("", format!("no answer within {:?}", self.deadline)))
    }

    async fn http(&self, client: &Client, to: Endpoint, carried: &Carried) -> CallReport {
        let request = Request::builder().method(Method::GET).uri(self.path).header(header::HOST, self.target);
        let Ok(mut request) = request.body(Body::empty()) else {
            return failed("", "not a valid path or host");
        };
        carried.write(request.headers_mut());
        let response = match client.send(&to, request).await {
            Ok(response) => response,
            Err(error) => return failed("", chain(&error)),
        };
        let status = response.status();
        let body = match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return failed(status.as_str(), error),
        };
        let mut report = callee(&body);
        report.status = status.as_str().to_owned();
        let fine = status.is_success() || status.is_redirection();
        report.error = (!fine).then(|| refusal(status, &body));
        report
    }

    async fn grpc(&self, client: &Client, to: Endpoint, carried: &Carried) -> CallReport {
        let Ok(authority) = self.target.parse() else {
            return failed("", "not a valid host");
        };
        let mut echo = EchoClient::new(Channel::new(client.clone(), to, authority));
        let request = || {
            let mut request = tonic::Request::new(EchoRequest::default());
            carried.write(request.metadata_mut().as_mut());
            request.set_timeout(self.deadline);
            request
        };
        let mut answer = echo.unary(request()).await;
        if answer.as_ref().is_err_and(was_not_begun) {
            answer = echo.unary(request()).await;
        }
        match answer {
            Ok(answer) => {
                let EchoResponse { server, version, calls, .. } = answer.into_inner();
                let calls = calls.into_iter().map(CallReport::from).collect();
                CallReport {
                    status: "grpc 0".into(),
                    workload: server,
                    version,
                    calls,
                    ..CallReport::default()
                }
            }
            Err(status) => failed(&format!("grpc {}", i32::from(status.code())), status.message()),
        }
    }
}

fn was_not_begun(status: &tonic::Status) -> bool {
    let cause = std::error::Error::source(status).and_then(|cause| cause.downcast_ref::<SendError>());
    matches!(cause, Some(SendError::NotBegun(_)))
}

async fn tcp(client: &Client, to: &Endpoint) -> CallReport {
    let mut stream = match client.dialer().dial(&to.host, to.port).await {
        Ok(stream) => stream,
        Err(error) => return failed("", chain(&error)),
    };
    let mut first = [0; 1024];
    let exchange = async {
        stream.write_all(b"leno\r\n").await?;
        let read = stream.read(&mut first).await?;
        stream.shutdown().await?;
        Ok::<_, std::io::Error>(read)
    };
    match exchange.await {
        Ok(0) => failed("", "closed without an answer"),
        Ok(_) => CallReport { status: "ok".into(), ..CallReport::default() },
        Err(error) => failed("", error),
    }
}

/// What a stand-in's answer says about itself; another application's says nothing.
fn callee(body: &Bytes) -> CallReport {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        pod: String,
        version: String,
        calls: Vec<CallReport>,
    }
    let Answer { pod, version, calls } = serde_json::from_slice(body).unwrap_or_default();
    CallReport { workload: pod, version, calls, ..CallReport::default() }
}

fn refusal(status: StatusCode, body: &Bytes) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(120).collect();
    if text.is_empty() { format!("status {status}") } else { format!("status {status}: {text}") }
}

fn failed(status: &str, error: impl ToString) -> CallReport {
    CallReport { status: status.to_owned(), error: Some(error.to_string()), ..CallReport::default() }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut parts: Vec<String> = causes.map(ToString::to_string).collect();
    parts.dedup();
    parts.join(": ")
}

impl CallProtocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_its_calls() {
        let variables = [
            ("PORT", "8080"),
            ("CART_SERVICE_ADDR", "cartservice:7070"),
            ("API_URL", "http://user@api.shop/v1?x=1"),
            ("DB_HOST", "db"),
            ("REDIS_ADDR", "redis-cart:6379"),
        ];
        let calls = from_environment(variables, |host, port| {
            Some(suggested_protocol(if host == "cartservice" { "grpc" } else { "" }, None, port))
        });
        let seen: Vec<_> =
            calls.iter().map(|call| (call.target.as_str(), call.protocol, call.path.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("cartservice:7070", CallProtocol::Grpc, "/"),
                ("api.shop:80", CallProtocol::Http, "/v1?x=1"),
                ("db:80", CallProtocol::Http, "/"),
                ("redis-cart:6379", CallProtocol::Tcp, "/"),
            ]
        );
    }
}
