//! From the proxy to its own application.
//!
//! Invariant: a request that certainly did not reach the application is answered as not delivered, so that the caller's
//! proxy may send anything elsewhere; one that may have reached it is never sent twice from here.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, StatusCode, header};
use leno_telemetry::{ResponseFlags, Step, record::inbound_cluster};

use super::{
    connect::{ConnectError, Security},
    exchange::{Hop, HopError, exchange},
    pool::{PoolKey, Version},
};
use crate::{
    core::Core,
    http::{Body, Delivery, SendFailure, hop},
    policy::Admitted,
    preface,
    record::OpenRecord,
    respond,
    turn::Meter,
};

/// Time to connect to an application on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Applications close idle connections unannounced, some after 2 s; this stays below.
const IDLE: Duration = Duration::from_millis(1500);

/// Most connections to the application, and most requests that wait for one.
const MAX_CONNECTIONS: u32 = 4096;
const MAX_PENDING: u32 = 4096;

/// Carries an admitted request to the application, which was dialled at an address and port of the workload.
pub(crate) async fn carry(
    core: &Rc<Core>,
    admitted: Admitted,
    (local, port): (IpAddr, u16),
    version: Version,
    mut request: Request<Body>,
    record: &mut OpenRecord,
) -> Response<Body> {
    let Admitted { .. } = admitted;
    let deadline = preface::deadline(request.headers());
    preface::strip(request.headers_mut());
    hop::for_version(request.headers_mut(), version == Version::H1);
    let body = std::mem::replace(request.body_mut(), Body::empty());
    *request.body_mut() = record.count_request(body);
    if let Some(details) = record.details() {
        details.connection.upstream_cluster = Some(inbound_cluster(port));
    }
    let asked = head_only(&request);
    let hop = to_application(core, core.shared.bootstrap.app_socket(local, port), version);
    if let Some(details) = record.details() {
        details.connection.upstream_host = Some(hop.key.address);
    }
    record.facts().attempts = 1;
    record.step(Step::Balance);
    let meter = Meter::default();
    let sending = exchange(core, &hop, request, &meter);
    let sent = match deadline {
        None => sending.await,
        Some(limit) => match tokio::time::timeout(limit, sending).await {
            Ok(sent) => sent,
            Err(_) => {
                record.exchanged(&meter);
                record.outcome(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout");
                return respond::timeout(&asked);
            }
        },
    };
    record.answered(&meter);
    match sent {
        Ok((mut response, local)) => {
            record.upstream_local(local);
            let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            preface::strip(response.headers_mut());
            hop::prepare_response(response.headers_mut(), switching);
            response
        }
        Err(error) => failed(&asked, port, &error, record),
    }
}

/// How to get to the application.
pub(crate) fn to_application(core: &Core, address: SocketAddr, version: Version) -> Hop {
    Hop {
        key: PoolKey { address, uid: core.app_uid.clone(), name: core.app_name.clone(), version },
        security: Security::Plain,
        within: CONNECT_TIMEOUT.into(),
        idle: IDLE,
        max_age: None,
        max_requests: None,
        max_connections: MAX_CONNECTIONS,
        max_pending: MAX_PENDING,
        health: Arc::clone(&core.app_health),
    }
}

fn failed(asked: &Request<()>, port: u16, error: &HopError, record: &mut OpenRecord) -> Response<Body> {
    let (flags, details, delivered, message) = match error {
        HopError::Connect(cause) => (
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            "upstream_reset_before_response_started{connection_failure}",
            false,
            format!("the application does not answer on port {port}: {}", why(cause)),
        ),
        HopError::Overflow => (
            ResponseFlags::UPSTREAM_OVERFLOW,
            "upstream_reset_before_response_started{overflow}",
            false,
            "too many connections to the application".to_owned(),
        ),
        HopError::Send(_, cause) if matches!(cause.failure, SendFailure::RequestBody(_)) => (
            ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
            "downstream_remote_disconnect",
            true,
            cause.to_string(),
        ),
        // It reached nobody, but it would not reach anybody elsewhere either.
        HopError::Send(_, cause) if matches!(cause.failure, SendFailure::BadRequest(_)) => {
            (ResponseFlags::INVALID_HEADERS, "request_not_forwardable", true, cause.to_string())
        }
        HopError::Send(_, cause) if matches!(cause.failure, SendFailure::BadResponse(_)) => (
            ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            "upstream_protocol_error",
            true,
            format!("the application's response is malformed: {cause}"),
        ),
        HopError::Send(delivery, cause) => (
            ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            "upstream_reset_before_response_started{connection_termination}",
            *delivery == Delivery::MaybeDelivered,
            format!("the application closed the connection: {cause}"),
        ),
    };
    record.outcome(flags, details);
    if let Some(details) = record.details() {
        details.upstream_transport_failure = Some(message.clone().into());
    }
    let status = if flags == ResponseFlags::UPSTREAM_PROTOCOL_ERROR {
        StatusCode::BAD_GATEWAY
    } else if flags == ResponseFlags::INVALID_HEADERS {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut response = respond::plain(asked, status, &message);
    if !delivered {
        respond::mark_not_delivered(&mut response);
    } else if flags == ResponseFlags::UPSTREAM_CONNECTION_TERMINATION {
        respond::mark_broken(&mut response);
    }
    response
}

/// Without the address, which is no news to a client of the mesh and none of the business of others.
fn why(cause: &ConnectError) -> String {
    match cause {
        ConnectError::Tcp { source, .. } => source.to_string(),
        ConnectError::Timeout(_) => "connecting timed out".to_owned(),
        other => other.to_string(),
    }
}

/// What answers of our own depend on, kept while the request itself is sent.
fn head_only(request: &Request<Body>) -> Request<()> {
    let mut head = Request::new(());
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
        head.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    head
}
