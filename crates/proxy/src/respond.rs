//! Responses that the proxy gives itself: the one place that turns outcomes into bytes for the client.
//!
//! gRPC callers get trailers-only responses with the status that gRPC's mapping of HTTP codes gives.

use http::{HeaderValue, Request, Response, StatusCode, header};
use leno_model::route::AbortWith;

use crate::{denials::DENIAL_HEADER, http::Body, preface};

/// For clients outside: a route leads to nothing that exists.
pub(crate) const NO_BACKEND: &str = "the route has no backend";
/// For clients outside: the server's proxy did not hand the request on.
pub(crate) const NOT_AVAILABLE: &str = "the service is not available";

/// A response with a line of text.
pub(crate) fn plain<B>(request: &Request<B>, status: StatusCode, message: &str) -> Response<Body> {
    if is_grpc(request) {
        return grpc(grpc_status(status), message);
    }
    let mut text = message.to_owned();
    text.push('\n');
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A response with a body of the user's.
pub(crate) fn direct(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !body.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// A redirect.
pub(crate) fn redirect(status: u16, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    match HeaderValue::try_from(location) {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// The caller waited long enough.
pub(crate) fn timeout<B>(request: &Request<B>) -> Response<Body> {
    plain(request, StatusCode::GATEWAY_TIMEOUT, "upstream request timeout")
}

/// A limit is reached.
pub(crate) fn overflow<B>(request: &Request<B>) -> Response<Body> {
    let mut response =
        plain(request, StatusCode::SERVICE_UNAVAILABLE, "too many requests to the service at once");
    mark_not_delivered(&mut response);
    response
}

/// Refused by a policy. Outside the mesh's own tools nothing but the id is told.
pub(crate) fn denied<B>(request: &Request<B>, id: &str) -> Response<Body> {
    let mut response = plain(request, StatusCode::FORBIDDEN, "RBAC: access denied");
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(DENIAL_HEADER, id);
    }
    response
}

/// An injected abort.
pub(crate) fn abort<B>(request: &Request<B>, with: AbortWith) -> Response<Body> {
    match with {
        AbortWith::Http(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            plain(request, status, "fault filter abort")
        }
        AbortWith::Grpc(status) => grpc(status, "fault filter abort"),
    }
}

/// Tells a peer's proxy that the application never saw the request, so that anything may be sent elsewhere.
pub(crate) fn mark_not_delivered(response: &mut Response<Body>) {
    response.headers_mut().insert(preface::NOT_DELIVERED, HeaderValue::from_static("1"));
}

/// Tells a peer's proxy that the application's connection broke before an answer, as its own would have without us.
pub(crate) fn mark_broken(response: &mut Response<Body>) {
    response.headers_mut().insert(preface::BROKEN, HeaderValue::from_static("1"));
}

fn grpc(status: u8, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    let message: String = percent_encoding::utf8_percent_encode(message, GRPC_MESSAGE).collect();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
    response
}

/// gRPC over HTTP/2, "Status-Message": everything but printable ASCII, and `%` itself, is escaped.
const GRPC_MESSAGE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// gRPC's "HTTP to gRPC Status Code Mapping", and DEADLINE_EXCEEDED for our own timeouts.
fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
