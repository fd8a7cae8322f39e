//! Answers over HTTP, by path.
//!
//! Invariants: bodies stream through with back pressure; what is collected or padded is bounded.
//! Must not know: connections and listeners.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde_json::json;
use tonic::body::Body;

use super::behaviour::parse_duration;
use super::calls::CallReport;
use super::graph::App;
use super::{grpc, websocket};

const MAX_DELAY: Duration = Duration::from_secs(60);
const MAX_PADDING: usize = 64 << 20;
const MAX_ECHOED: usize = 64 << 10;
const CHUNK: &[u8] = &[b'x'; 16 << 10];
const ECHOED_BYTES: HeaderName = HeaderName::from_static("x-echoed-bytes");
/// Request headers that an answer shows without being asked.
const SHOWN: [&str; 12] = [
    "host",
    "user-agent",
    "end-user",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-b3-traceid",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-client-cert",
    "x-envoy-attempt-count",
    "x-leno-hops",
];

/// What an answer says.
#[derive(Serialize)]
struct Answer<'a> {
    service: &'a str,
    workload: &'a str,
    version: &'a str,
    namespace: &'a str,
    service_account: &'a str,
    pod: &'a str,
    path: &'a str,
    protocol: &'static str,
    headers: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    calls: Vec<CallReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    padding: String,
}

/// Answers one request.
pub(super) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let old = request.version() < Version::HTTP_2;
    let rpc = grpc::is_grpc(request.headers());
    let path = request.uri().path();
    let health = is_health(path) || (rpc && path.starts_with("/grpc.health."));
    app.notes.received(request.method(), request.headers());
    let mut response = if rpc {
        Box::pin(grpc::answer(&app, request)).await
    } else if health {
        text(StatusCode::OK, "ok\n")
    } else {
        Box::pin(by_path(&app, request)).await
    };
    app.counting.answered(response.status().as_u16(), rpc, health);
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if old && !switching && app.draining.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn is_health(path: &str) -> bool {
    matches!(path, "/health" | "/healthz" | "/_healthz" | "/livez" | "/ready" | "/readyz")
        || path.starts_with("/health/")
}

async fn by_path(app: &Arc<App>, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return text(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served\n");
    }
    if websocket::is_upgrade(request.headers()) {
        return websocket::accept(app, request);
    }
    let steering = Steering::of(&request);
    tokio::time::sleep(steering.delay).await;
    if let Some(status) = steering.status {
        return text(status, &format!("{status}, as asked\n"));
    }
    match request.uri().path() {
        "/echo" => echo(request),
        "/stream" => chunks(&request),
        "/trailers" => trailers(app),
        "/leno/counters" => body_of(StatusCode::OK, &app.counting.snapshot()),
        _ => walk(app, request, steering).await,
    }
}

/// The answer of an application: its calls and what it saw.
async fn walk(app: &Arc<App>, request: Request<Incoming>, steering: Steering) -> Response<Body> {
    let (head, body) = request.into_parts();
    let plan = app.plan(head.uri.path());
    let (latency, error) = plan.roll();
    tokio::time::sleep(latency).await;
    if let Some(status) = error.and_then(|status| StatusCode::from_u16(status).ok()) {
        return text(status, "the behaviour says so\n");
    }
    let calls = match steering.calls {
        true => Box::pin(app.make_calls(&plan, &head.headers)).await,
        false => Vec::new(),
    };
    let request = match steering.echo {
        true => Some(json!({
            "method": head.method.as_str(),
            "uri": head.uri.to_string(),
            "headers": shown(&head.headers, |_| true),
            "body": collected(body).await,
        })),
        false => None,
    };
    let status = if plan.fails_with(&calls) { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
    let spec = &app.spec;
    let answer = Answer {
        service: &spec.app,
        workload: &spec.app,
        version: &spec.version,
        namespace: &spec.namespace,
        service_account: &spec.service_account,
        pod: &spec.name,
        path: head.uri.path(),
        protocol: if head.version < Version::HTTP_2 { "http/1.1" } else { "h2" },
        headers: shown(&head.headers, |name| SHOWN.contains(&name)),
        text: plan.text(),
        calls,
        request,
        padding: "x".repeat(steering.body_bytes.unwrap_or(plan.body_bytes()).min(MAX_PADDING)),
    };
    body_of(status, &answer)
}

async fn collected(body: Incoming) -> String {
    match Limited::new(body, MAX_ECHOED).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => format!("more than {MAX_ECHOED} bytes, or broken off"),
    }
}

fn shown(headers: &HeaderMap, show: impl Fn(&str) -> bool) -> serde_json::Value {
    let mut shown = serde_json::Map::new();
    for name in headers.keys().filter(|name| show(name.as_str())) {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        shown.insert(name.as_str().to_owned(), values.collect::<Vec<_>>().join(", ").into());
    }
    shown.into()
}

/// How a request wants to be answered.
struct Steering {
    status: Option<StatusCode>,
    delay: Duration,
    body_bytes: Option<usize>,
    echo: bool,
    calls: bool,
}

impl Steering {
    fn of<B>(request: &Request<B>) -> Self {
        let asked = |name| parameter(request, name);
        Self {
            status: asked("x-leno-status")
                .and_then(|status| status.parse::<u16>().ok())
                // 1xx are no final answers.
                .filter(|status| (200..1000).contains(status))
                .and_then(|status| StatusCode::from_u16(status).ok()),
            delay: asked("x-leno-delay")
                .and_then(|time| parse_duration(&time))
                .unwrap_or_default()
                .min(MAX_DELAY),
            body_bytes: asked("x-leno-body-bytes").and_then(|bytes| bytes.parse().ok()),
            echo: asked("x-leno-echo").is_some(),
            calls: asked("x-leno-calls").is_none_or(|calls| calls != "none"),
        }
    }
}

/// A header, else a query parameter.
fn parameter<B>(request: &Request<B>, name: &str) -> Option<String> {
    if let Some(value) = request.headers().get(name).and_then(|value| value.to_str().ok()) {
        return Some(value.to_owned());
    }
    let pairs = request.uri().query()?.split('&');
    let found = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).find(|(key, _)| *key == name);
    found.map(|(_, value)| value.to_owned())
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let frames = stream::unfold(Some((body, 0_u64)), |state| async {
        let (mut body, echoed) = state?;
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let echoed = echoed + data.len() as u64;
                    Some((Ok(Frame::data(data)), Some((body, echoed))))
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    trailers.insert(ECHOED_BYTES, echoed.into());
                    Some((Ok(Frame::trailers(trailers)), None))
                }
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                let trailers = HeaderMap::from_iter([(ECHOED_BYTES, HeaderValue::from(echoed))]);
                Some((Ok(Frame::trailers(trailers)), None))
            }
        }
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-echoed-bytes"));
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

fn chunks<B>(request: &Request<B>) -> Response<Body> {
    let number =
        |name, default: u64| parameter(request, name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (count, size) = (number("count", 10).min(100_000), number("bytes", 100).clamp(1, CHUNK.len() as u64));
    let interval = parameter(request, "interval").and_then(|time| parse_duration(&time)).unwrap_or_default();
    let interval = interval.min(MAX_DELAY);
    let chunk = Bytes::from_static(CHUNK).slice(..usize::try_from(size).unwrap_or(1));
    let frames = stream::iter(0..count).then(move |index| {
        let chunk = chunk.clone();
        async move {
            if index > 0 && !interval.is_zero() {
                tokio::time::sleep(interval).await;
            }
            Ok::<_, Infallible>(Frame::data(chunk))
        }
    });
    Response::new(Body::new(StreamBody::new(frames)))
}

fn trailers(app: &App) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailer", HeaderValue::from_static("yes"));
    if let Ok(pod) = HeaderValue::from_str(&app.spec.name) {
        trailers.insert("x-pod", pod);
    }
    // A stream, because HTTP/1.1 has no trailers behind a body of a known length.
    let data = Frame::data(Bytes::from_static(b"trailers follow\n"));
    let frames = stream::iter([Ok::<_, Infallible>(data), Ok(Frame::trailers(trailers))]);
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-trailer, x-pod"));
    response
}

pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::copy_from_slice(text.as_bytes()))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn body_of(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let Ok(body) = serde_json::to_vec(value) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the answer has no JSON form\n");
    };
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
