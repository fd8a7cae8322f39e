//! Probes that ask for a page, over HTTP/1.1 and as the kubelet does: any certificate will do, redirects are followed within the
//! host, 200 to 399 is success.

use std::net::IpAddr;

use ::http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use leno_identity::{PlainTrust, plain_client_config};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{Failure, connect};

/// As Go's client, which the kubelet is.
const MOST_REDIRECTS: usize = 10;

/// A page that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Path and query.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The port.
    pub port: u16,
    /// HTTP or HTTPS.
    #[serde(default)]
    pub scheme: Scheme,
    /// Another host than the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Headers to send; `Host` replaces the host's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<Header>,
}

/// A header to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// How a page is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS, whatever the certificate.
    Https,
}

/// Where the next request goes.
struct Step {
    scheme: Scheme,
    port: u16,
    target: String,
}

impl HttpGet {
    /// Asks, and says whether the answer is a success.
    pub(super) async fn ask(&self, pod: IpAddr, agent: Option<&str>) -> Result<(), Failure> {
        let target = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let mut step = Step { scheme: self.scheme, port: self.port, target };
        for _ in 0..MOST_REDIRECTS {
            let response = self.send(pod, agent, &step).await?;
            let status = response.status();
            let next = status.is_redirection().then(|| self.next(pod, &step, &response)).flatten();
            match next {
                Some(next) => step = next,
                None if status.is_success() || status.is_redirection() => return Ok(()),
                None => return Err(Failure::Answer(format!("status {}", status.as_u16()))),
            }
        }
        Err(Failure::Answer(format!("more than {MOST_REDIRECTS} redirects")))
    }

    async fn send(
        &self,
        pod: IpAddr,
        agent: Option<&str>,
        step: &Step,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request(pod, agent, step)?;
        let stream = connect(pod, self.host.as_deref(), step.port).await?;
        if step.scheme == Scheme::Http {
            return exchange(stream, request).await;
        }
        let unusable = |error: &dyn std::fmt::Display| Failure::Answer(error.to_string());
        let config = plain_client_config(PlainTrust::Unverified, &[], None, &[b"http/1.1"]);
        let config = config.map_err(|error| unusable(&error))?;
        let name = ServerName::try_from(self.host_name(pod)).map_err(|error| unusable(&error))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        exchange(stream.map_err(|error| Failure::Answer(format!("handshake: {error}")))?, request).await
    }

    fn request(
        &self,
        pod: IpAddr,
        agent: Option<&str>,
        step: &Step,
    ) -> Result<Request<Empty<Bytes>>, Failure> {
        let bad = |what: &str| Failure::Answer(format!("the probe's {what} cannot be sent"));
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = step.target.parse().map_err(|_| bad("path"))?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let host = self.host_name(pod);
        let host = if host.contains(':') {
            format!("[{host}]:{}", step.port)
        } else {
            format!("{host}:{}", step.port)
        };
        headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|_| bad("host"))?);
        if let Some(agent) = agent.and_then(|agent| HeaderValue::try_from(agent).ok()) {
            headers.insert(header::USER_AGENT, agent);
        }
        let mut own = ::http::HeaderMap::new();
        for Header { name, value } in &self.http_headers {
            let name = HeaderName::try_from(name).map_err(|_| bad("header"))?;
            own.append(name, HeaderValue::try_from(value).map_err(|_| bad("header"))?);
        }
        for name in own.keys() {
            headers.remove(name);
        }
        headers.extend(own);
        Ok(request)
    }

    /// Where a redirect leads, unless it leads to another host.
    fn next(&self, pod: IpAddr, step: &Step, response: &Response<Incoming>) -> Option<Step> {
        let location: Uri = response.headers().get(header::LOCATION)?.to_str().ok()?.parse().ok()?;
        let target = location.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some(host) = location.host() else {
            return target.starts_with('/').then_some(Step { target, ..*step });
        };
        if host.trim_matches(['[', ']']) != self.host_name(pod) {
            return None;
        }
        let (scheme, port) = match location.scheme_str() {
            Some("https") => (Scheme::Https, 443),
            _ => (Scheme::Http, 80),
        };
        Some(Step { scheme, port: location.port_u16().unwrap_or(port), target })
    }

    fn host_name(&self, pod: IpAddr) -> String {
        self.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod.to_string())
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let failed = |error: hyper::Error| Failure::Answer(super::super::forward::attempts::chain(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answered = sender.send_request(request);
    // The head is all that counts; what drives the connection is dropped with it.
    tokio::pin!(answered, connection);
    tokio::select! {
        response = &mut answered => response.map_err(failed),
        ended = &mut connection => {
            ended.map_err(failed)?;
            answered.await.map_err(failed)
        }
    }
}
