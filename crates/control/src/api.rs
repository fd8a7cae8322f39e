//! The control plane's API: JSON over HTTP/1.1 on the loopback interface. `docs/reference/control-api.md` describes every route.
//!
//! Invariants: an answer speaks of one generation; no answer holds a private key; nothing here changes anything.

mod inventory;
mod metrics;
mod objects;
mod status;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use leno_ca::Authority;
use leno_identity::{IdentityStore, UnixTime};
use leno_xds::transport::Sessions;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::ControlConfig,
    connections,
    identity_service::IssueCounts,
    input::Said,
    peering::Peers,
    published::{Newest, Published},
};

/// Connections at a time.
const CONNECTIONS: usize = 128;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the API looks at.
pub(crate) struct Api {
    pub(crate) config: Arc<ControlConfig>,
    pub(crate) newest: Newest,
    pub(crate) sessions: Sessions,
    pub(crate) said: watch::Receiver<Said>,
    pub(crate) peers: Peers,
    pub(crate) store: Arc<IdentityStore>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) counts: Arc<IssueCounts>,
    pub(crate) started: UnixTime,
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Processes of this machine (or pod): every route.
    Local,
    /// Whoever reaches the port: readiness, metrics, version.
    Everybody,
}

/// Serves every route until `stop`; the listener is on a loopback address.
pub(crate) async fn serve(api: Arc<Api>, listener: TcpListener, stop: CancellationToken) {
    serve_to(Audience::Local, api, listener, stop).await;
}

/// Serves what an audience may see until `stop`.
pub(crate) async fn serve_to(
    audience: Audience,
    api: Arc<Api>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let converse = |stream| converse(audience, api.clone(), stream);
    connections::each("API", CONNECTIONS, listener, stop, converse).await;
}

async fn converse(audience: Audience, api: Arc<Api>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(answer(audience, &api, &request)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the API ended");
    }
}

/// What a route says.
enum Answer {
    Json(Value),
    Text(String),
    Error(StatusCode, &'static str),
}

fn answer(audience: Audience, api: &Api, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = if request.method() == Method::GET || request.method() == Method::HEAD {
        route(audience, api, request.uri().path(), &query(request.uri().query().unwrap_or_default()))
    } else {
        Answer::Error(StatusCode::METHOD_NOT_ALLOWED, "the API is read with GET")
    };
    let (status, kind, body) = match answer {
        Answer::Json(value) => (StatusCode::OK, "application/json", value.to_string()),
        Answer::Text(text) => (StatusCode::OK, "text/plain; version=0.0.4", text),
        Answer::Error(status, error) => (status, "application/json", json!({ "error": error }).to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn route(audience: Audience, api: &Api, path: &str, query: &BTreeMap<String, String>) -> Answer {
    let published = api.newest.load();
    match path {
        "/healthz" => return Answer::Json(json!({ "ok": true })),
        "/readyz" | "/ready" if published.is_some() => return Answer::Json(json!({ "ok": true })),
        "/metrics" => return Answer::Text(metrics::text(api, published.as_deref())),
        "/version" => return Answer::Text(concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned()),
        _ => {}
    }
    if !ROUTES.contains(&path) || (audience == Audience::Everybody && path != "/readyz") {
        return Answer::Error(
            StatusCode::NOT_FOUND,
            "there is no such route; docs/reference/control-api.md lists them",
        );
    }
    let Some(published) = published else {
        return Answer::Error(StatusCode::SERVICE_UNAVAILABLE, "nothing is published yet");
    };
    of_generation(api, path, query, &published)
}

const ROUTES: [&str; 10] = [
    "/readyz",
    "/v1/status",
    "/v1/proxies",
    "/v1/diagnostics",
    "/v1/objects",
    "/v1/resources",
    "/v1/services",
    "/v1/gateways",
    "/v1/peers",
    "/v1/world",
];

fn of_generation(api: &Api, path: &str, query: &BTreeMap<String, String>, published: &Published) -> Answer {
    Answer::Json(match path {
        "/v1/status" => status::status(api, published),
        "/v1/proxies" => status::proxies(api, published),
        "/v1/diagnostics" => objects::diagnostics(published),
        "/v1/objects" => objects::objects(published, query),
        "/v1/resources" => inventory::resources(published, query),
        "/v1/services" => inventory::services(published),
        "/v1/gateways" => inventory::gateways(published),
        "/v1/peers" => status::peers(api),
        "/v1/world" => inventory::world(api, published),
        _ => return Answer::Error(StatusCode::NOT_FOUND, "there is no such route"),
    })
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (unescape(name), unescape(value))).collect()
}

/// Undoes percent-encoding; what is not well formed stays as it is.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                at += 3;
            }
            None => {
                plain.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_unescaped_and_nonsense_in_it_harms_nobody() {
        let found = query("name=shop%2Fcart&kind=HTTPRoute&x=%f&lonely&y=%zz%");
        assert_eq!(found["name"], "shop/cart");
        assert_eq!(found["kind"], "HTTPRoute");
        assert_eq!(found["x"], "%f");
        assert_eq!(found["y"], "%zz%");
        assert_eq!(found.len(), 4);
    }
}
