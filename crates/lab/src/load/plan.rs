//! What to send, how often, and through what.
//!
//! Must not know: sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use tonic::body::Body;

use crate::standin::dial::Dialer;

/// Makes the request with a number: in origin form, with `host`, for HTTP/1.1; with an absolute URI otherwise.
pub type MakeRequest = Arc<dyn Fn(u64) -> Request<Body> + Send + Sync>;
/// Names an answer by its head and the start of its body, to count answers by name.
pub type Label = Arc<dyn Fn(&http::response::Parts, &[u8]) -> Option<String> + Send + Sync>;

/// A load.
#[derive(Clone)]
pub struct Plan {
    /// Requests a second.
    pub rate: f64,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// Where they go, by weight.
    pub targets: Vec<Target>,
    /// Through what.
    pub dialer: Dialer,
    /// Most requests under way.
    pub max_in_flight: usize,
    /// Longest wait for the end of an answer.
    pub timeout: Duration,
    /// How many failures of a phase are kept with their reasons.
    pub keep_failures: usize,
    /// Seed of arrivals and choices.
    pub seed: u64,
}

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At even distances.
    Constant,
    /// At random, as independent users would come.
    #[default]
    Poisson,
}

/// One kind of request.
#[derive(Clone)]
pub struct Target {
    /// What it is called in the numbers.
    pub name: String,
    /// Its share among the targets.
    pub weight: u32,
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is spoken.
    pub protocol: LoadProtocol,
    /// Makes the requests.
    pub request: MakeRequest,
    /// The statuses that are no failures; when empty, all below 400 (HTTP) or 0 (gRPC).
    pub expected: Vec<u16>,
    /// Names answers.
    pub label: Option<Label>,
}

/// What a target speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadProtocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, unary: the status is that of the trailers.
    Grpc,
}

impl Plan {
    /// Poisson arrivals, at most 1,000 requests under way, 10 s each.
    #[must_use]
    pub fn new(rate: f64, targets: Vec<Target>, dialer: Dialer) -> Self {
        Self {
            rate,
            arrivals: Arrivals::Poisson,
            targets,
            dialer,
            max_in_flight: 1000,
            timeout: Duration::from_secs(10),
            keep_failures: 20,
            seed: 1,
        }
    }
}

impl Target {
    /// GET of a path over HTTP/1.1.
    #[must_use]
    pub fn get(host: &str, port: u16, path: &str) -> Self {
        let authority = format!("{host}:{port}");
        let uri = path.to_owned();
        let request = move |_| request(Method::GET, &uri, Some(&authority), None, Body::empty());
        Self::new(host, port, LoadProtocol::Http1, path, Arc::new(request))
    }

    /// GET of a path over HTTP/2 with prior knowledge.
    #[must_use]
    pub fn get_h2(host: &str, port: u16, path: &str) -> Self {
        let uri = format!("http://{host}:{port}{path}");
        let request = move |_| request(Method::GET, &uri, None, None, Body::empty());
        Self::new(host, port, LoadProtocol::Http2, path, Arc::new(request))
    }

    /// A unary gRPC call: `/package.Service/Method` with a message.
    #[must_use]
    pub fn grpc(host: &str, port: u16, method: &str, message: &impl prost::Message) -> Self {
        let uri = format!("http://{host}:{port}{method}");
        let message = crate::standin::frame(message);
        let request = move |_| {
            let body = Body::new(Full::<Bytes>::new(message.clone()));
            request(Method::POST, &uri, None, Some("application/grpc"), body)
        };
        Self::new(host, port, LoadProtocol::Grpc, method, Arc::new(request))
    }

    /// Any request.
    #[must_use]
    pub fn new(host: &str, port: u16, protocol: LoadProtocol, name: &str, request: MakeRequest) -> Self {
        Self {
            name: name.to_owned(),
            weight: 1,
            host: host.to_owned(),
            port,
            protocol,
            request,
            expected: Vec::new(),
            label: None,
        }
    }
}

fn request(method: Method, uri: &str, host: Option<&str>, kind: Option<&str>, body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(host) = host {
        request = request.header(header::HOST, host);
    }
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind).header(header::TE, "trailers");
    }
    // What cannot be a URI becomes `/`: the target then answers what it thinks of that.
    request.body(body).unwrap_or_else(|_| Request::new(Body::empty()))
}
