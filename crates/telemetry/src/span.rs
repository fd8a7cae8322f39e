//! Spans: a request's record as OpenTelemetry wants it (HTTP and RPC semantic conventions, and `istio.*` tags).
//!
//! Invariant: a record without a sampled [`crate::SpanContext`] makes no span. The query of a path is left out, for it may hold
//! secrets.
//! Must not know: how spans are sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::{
    proto::{
        common::v1::{AnyValue, KeyValue, any_value::Value},
        trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
    },
    record::{HttpVersion, PeerMeta, Reporter, RequestDetails, RequestProtocol, RequestRecord},
};

/// The span of a record; `None` when its trace is not sampled.
pub(crate) fn of(record: &RequestRecord, mesh_id: &str) -> Option<Span> {
    let context = record.trace.filter(|trace| trace.sampled)?;
    let kind = match record.reporter {
        Reporter::Source => SpanKind::Client,
        Reporter::Destination => SpanKind::Server,
    };
    let start = nanos(record.start);
    let (status, error_type) = outcome(record);
    let mut attributes = Attributes::default();
    attributes.outcome(record, error_type);
    if let Some(details) = record.details.as_deref() {
        attributes.http(details, record.reporter);
    }
    attributes.mesh(record, mesh_id);
    Some(Span {
        trace_id: Bytes::copy_from_slice(context.trace.as_bytes()),
        span_id: Bytes::copy_from_slice(context.span.as_bytes()),
        trace_state: String::new(),
        parent_span_id: context
            .parent
            .map(|parent| Bytes::copy_from_slice(parent.as_bytes()))
            .unwrap_or_default(),
        name: name(record),
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(whole_nanos(record.duration)),
        attributes: attributes.0,
        status: Some(Status { message: String::new(), code: status.into() }),
        flags: 1,
    })
}

/// OpenTelemetry: `{method} {route}`, and `{service}/{method}` for gRPC; never the path, whose values have no bound.
fn name(record: &RequestRecord) -> String {
    let Some(details) = record.details.as_deref() else { return "HTTP".to_owned() };
    if record.protocol == RequestProtocol::Grpc {
        return path(details).trim_start_matches('/').to_owned();
    }
    let method = known_method(&details.method).unwrap_or("HTTP");
    match &details.route_name {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

/// OpenTelemetry: a client's span failed from 400 on, a server's from 500; gRPC by its status.
fn outcome(record: &RequestRecord) -> (StatusCode, Option<String>) {
    if let (RequestProtocol::Grpc, Some(status)) = (record.protocol, record.grpc_status) {
        let is_error = match record.reporter {
            Reporter::Source => status != 0,
            // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
            Reporter::Destination => matches!(status, 2 | 4 | 12 | 13 | 14 | 15),
        };
        return if is_error {
            (StatusCode::Error, Some(status.to_string()))
        } else {
            (StatusCode::Unset, None)
        };
    }
    let first_error = if record.reporter == Reporter::Source { 400 } else { 500 };
    match record.response_code {
        // No response was sent: the flags say why.
        0 => (StatusCode::Error, Some(record.flags.to_string())),
        code if code >= first_error => (StatusCode::Error, Some(code.to_string())),
        _ => (StatusCode::Unset, None),
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn outcome(&mut self, record: &RequestRecord, error_type: Option<String>) {
        if record.response_code != 0 {
            self.number("http.response.status_code", u64::from(record.response_code));
        }
        self.maybe("error.type", error_type.as_deref());
        self.number("http.request.body.size", record.bytes_received);
        self.number("http.response.body.size", record.bytes_sent);
        if record.attempts > 1 {
            self.number("http.request.resend_count", u64::from(record.attempts - 1));
        }
        if record.protocol == RequestProtocol::Grpc {
            self.text("rpc.system", "grpc");
            if let Some(status) = record.grpc_status {
                self.number("rpc.grpc.status_code", u64::from(status));
            }
        }
    }

    fn http(&mut self, details: &RequestDetails, reporter: Reporter) {
        match known_method(&details.method) {
            Some(method) => self.text("http.request.method", method),
            None => {
                self.text("http.request.method", "_OTHER");
                self.text("http.request.method_original", &details.method);
            }
        }
        self.text("url.path", path(details));
        self.maybe("http.route", details.route_name.as_deref());
        self.maybe("network.protocol.version", details.version.map(protocol_version));
        if let Some(authority) = details.authority.as_deref() {
            let (host, port) = split_authority(authority);
            self.text("server.address", host);
            if let Some(port) = port {
                self.number("server.port", u64::from(port));
            }
        }
        self.maybe("user_agent.original", details.user_agent.as_deref());
        self.maybe("guid:x-request-id", details.request_id.as_deref());
        let connection = &details.connection;
        let peer = match reporter {
            Reporter::Source => connection.upstream_host,
            Reporter::Destination => connection.downstream_remote,
        };
        if let Some(peer) = peer {
            self.text("network.peer.address", &peer.ip().to_string());
            self.number("network.peer.port", u64::from(peer.port()));
        }
        self.maybe("upstream_cluster", connection.upstream_cluster.as_deref());
        self.maybe("leno.denial_id", details.denial.as_deref());
    }

    fn mesh(&mut self, record: &RequestRecord, mesh_id: &str) {
        let own: &PeerMeta = match record.reporter {
            Reporter::Source => &record.source,
            Reporter::Destination => &record.destination,
        };
        self.text("response_flags", &record.flags.to_string());
        for (key, value) in [
            ("istio.canonical_revision", &*own.canonical_revision),
            ("istio.canonical_service", &own.canonical_service),
            ("istio.mesh_id", mesh_id),
            ("istio.namespace", &own.namespace),
            ("istio.cluster_id", &own.cluster),
        ] {
            self.text(key, if value.is_empty() { "unknown" } else { value });
        }
        self.number("leno.overhead_micros", record.overhead.total() / 1_000);
        if let Some(micros) = record.peer_overhead {
            self.number("leno.peer_overhead_micros", micros);
        }
    }

    fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn text(&mut self, key: &str, value: &str) {
        self.0.push(text_attribute(key, value));
    }

    fn number(&mut self, key: &str, value: u64) {
        let value = Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) });
    }
}

/// An attribute with a text.
pub(crate) fn text_attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn path(details: &RequestDetails) -> &str {
    details.path.split('?').next().unwrap_or("")
}

/// RFC 9110 and RFC 5789: what OpenTelemetry takes for a known method.
fn known_method(method: &str) -> Option<&str> {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    known.contains(&method).then_some(method)
}

fn protocol_version(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::Http10 => "1.0",
        HttpVersion::Http11 => "1.1",
        HttpVersion::Http2 => "2",
    }
}

/// The host and the port of an authority; the brackets of an IPv6 address are taken off.
fn split_authority(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn nanos(at: SystemTime) -> u64 {
    whole_nanos(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_has_a_host_and_maybe_a_port() {
        assert_eq!(split_authority("shop:8080"), ("shop", Some(8080)));
        assert_eq!(split_authority("shop"), ("shop", None));
        assert_eq!(split_authority("[::1]:80"), ("::1", Some(80)));
        assert_eq!(split_authority("::1"), ("::1", None));
        assert_eq!(split_authority("shop:x"), ("shop", None));
    }
}
