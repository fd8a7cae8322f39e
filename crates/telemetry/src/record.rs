//! The facts of one finished request or connection, filled by the proxy, turned into metrics, logs and spans here.
//!
//! Invariant: a record is plain data. What costs an allocation and only logs or spans read lies in
//! [`RequestDetails`], which the proxy fills only when [`crate::Telemetry::wants_details`].
//! Must not know: how any of it is rendered.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration, time::SystemTime};

use leno_model::SpiffeId;

use crate::{flags::ResponseFlags, overhead::Overhead, trace_context::SpanContext};

/// Which side of a hop reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

impl Reporter {
    /// The value of the `reporter` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Who is on one end: made once for each connection or endpoint and shared by its records.
///
/// An empty text means that it is not known.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PeerMeta {
    /// The workload that owns the replica (Deployment name).
    pub workload: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Canonical service name.
    pub canonical_service: Arc<str>,
    /// Canonical revision; empty is written `latest` where the canonical service is known.
    pub canonical_revision: Arc<str>,
    /// The `app` label.
    pub app: Arc<str>,
    /// The `version` label.
    pub version: Arc<str>,
    /// The cluster.
    pub cluster: Arc<str>,
    /// The verified identity.
    pub principal: Option<SpiffeId>,
    /// The region.
    pub region: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
}

impl PeerMeta {
    /// A peer of which nothing is known.
    pub fn unknown() -> Arc<Self> {
        Arc::new(Self::default())
    }
}

/// Which service was called: made once for each service and shared by its records.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServiceMeta {
    /// The fully qualified name (`reviews.default.svc.cluster.local`).
    pub host: Arc<str>,
    /// The short name.
    pub name: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
}

impl ServiceMeta {
    /// A service that is not known (traffic to the outside, a request without a route).
    pub fn unknown() -> Arc<Self> {
        Arc::new(Self::default())
    }
}

/// What a request speaks, as the `request_protocol` label says it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RequestProtocol {
    /// HTTP other than gRPC.
    Http,
    /// gRPC.
    Grpc,
}

impl RequestProtocol {
    /// The value of the `request_protocol` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// The version of HTTP the client spoke.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl HttpVersion {
    /// As access logs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// How the client's connection was secured, as the destination saw it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConnectionSecurity {
    /// Mutual TLS with a verified peer.
    MutualTls,
    /// Plaintext, or TLS without a peer certificate.
    None,
    /// Not known.
    Unknown,
}

impl ConnectionSecurity {
    /// The value of the `connection_security_policy` label: always `unknown` on the source (CONTRACTS section 1).
    pub const fn label(self, reporter: Reporter) -> &'static str {
        match (reporter, self) {
            (Reporter::Source, _) | (_, Self::Unknown) => "unknown",
            (Reporter::Destination, Self::MutualTls) => "mutual_tls",
            (Reporter::Destination, Self::None) => "none",
        }
    }
}

/// One finished HTTP or gRPC request.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Which side reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Arc<PeerMeta>,
    /// The server.
    pub destination: Arc<PeerMeta>,
    /// The service called.
    pub service: Arc<ServiceMeta>,
    /// HTTP or gRPC.
    pub protocol: RequestProtocol,
    /// The status sent; 0 when none was.
    pub response_code: u16,
    /// gRPC's status, from the trailers or the head; `None` when there was none.
    pub grpc_status: Option<u16>,
    /// Response flags.
    pub flags: ResponseFlags,
    /// Envoy's response code details (`via_upstream`, `route_not_found`, ...).
    pub details_code: Cow<'static, str>,
    /// How the client's connection was secured.
    pub security: ConnectionSecurity,
    /// Bytes of body received from the client.
    pub bytes_received: u64,
    /// Bytes of body sent to the client.
    pub bytes_sent: u64,
    /// gRPC messages received from the client.
    pub request_messages: u64,
    /// gRPC messages sent to the client.
    pub response_messages: u64,
    /// When the first byte of the request came.
    pub start: SystemTime,
    /// From then to the last byte sent.
    pub duration: Duration,
    /// Time this hop added, by step.
    pub overhead: Overhead,
    /// Microseconds the other hop says it added.
    pub peer_overhead: Option<u64>,
    /// Times the request was sent upstream; 0 when it was answered here.
    pub attempts: u32,
    /// This request's span; `None` when tracing is off.
    pub trace: Option<SpanContext>,
    /// What only logs and spans read.
    pub details: Option<Box<RequestDetails>>,
}

impl RequestRecord {
    /// A record with nothing but its ends; the rest is filled by struct update or assignment.
    pub fn new(
        reporter: Reporter,
        source: Arc<PeerMeta>,
        destination: Arc<PeerMeta>,
        service: Arc<ServiceMeta>,
        start: SystemTime,
    ) -> Self {
        Self {
            reporter,
            source,
            destination,
            service,
            protocol: RequestProtocol::Http,
            response_code: 0,
            grpc_status: None,
            flags: ResponseFlags::NONE,
            details_code: Cow::Borrowed("via_upstream"),
            security: ConnectionSecurity::Unknown,
            bytes_received: 0,
            bytes_sent: 0,
            request_messages: 0,
            response_messages: 0,
            start,
            duration: Duration::ZERO,
            overhead: Overhead::default(),
            peer_overhead: None,
            attempts: 0,
            trace: None,
            details: None,
        }
    }
}

/// The part of a request that only access logs and spans read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestDetails {
    /// The method.
    pub method: Box<str>,
    /// The path with its query, as the client sent it.
    pub path: Box<str>,
    /// HTTP's version; `None` when nothing was parsed.
    pub version: Option<HttpVersion>,
    /// `:authority` or `host`.
    pub authority: Option<Box<str>>,
    /// `user-agent`.
    pub user_agent: Option<Box<str>>,
    /// `x-request-id`.
    pub request_id: Option<Box<str>>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<Box<str>>,
    /// The name of the route.
    pub route_name: Option<Arc<str>>,
    /// Milliseconds from sending upstream to its response head.
    pub upstream_service_time: Option<u64>,
    /// Why the upstream's transport failed.
    pub upstream_transport_failure: Option<Box<str>>,
    /// Why the connection was closed.
    pub connection_termination: Option<Cow<'static, str>>,
    /// The denial's id, for `leno why`.
    pub denial: Option<Box<str>>,
    /// Addresses and names of the connection.
    pub connection: ConnectionDetails,
}

/// The part of a connection that only access logs and spans read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectionDetails {
    /// The endpoint chosen.
    pub upstream_host: Option<SocketAddr>,
    /// The upstream's name in Envoy's form; see [`outbound_cluster`] and [`inbound_cluster`].
    pub upstream_cluster: Option<Arc<str>>,
    /// Our end of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// Our end of the client's connection.
    pub downstream_local: Option<SocketAddr>,
    /// The client's end.
    pub downstream_remote: Option<SocketAddr>,
    /// The SNI the client sent.
    pub server_name: Option<Arc<str>>,
}

/// One TCP connection, at its opening or its end.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Which side reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Arc<PeerMeta>,
    /// The server.
    pub destination: Arc<PeerMeta>,
    /// The service called.
    pub service: Arc<ServiceMeta>,
    /// Response flags.
    pub flags: ResponseFlags,
    /// Envoy's response code details; empty when there are none.
    pub details_code: Cow<'static, str>,
    /// How the client's connection was secured.
    pub security: ConnectionSecurity,
    /// Bytes received from the client.
    pub bytes_received: u64,
    /// Bytes sent to the client.
    pub bytes_sent: u64,
    /// When it was accepted.
    pub start: SystemTime,
    /// From then to its end.
    pub duration: Duration,
    /// The denial's id, for `leno why`.
    pub denial: Option<Box<str>>,
    /// What only logs read.
    pub details: Option<Box<ConnectionDetails>>,
}

impl ConnectionRecord {
    /// A record with nothing but its ends.
    pub fn new(
        reporter: Reporter,
        source: Arc<PeerMeta>,
        destination: Arc<PeerMeta>,
        service: Arc<ServiceMeta>,
        start: SystemTime,
    ) -> Self {
        Self {
            reporter,
            source,
            destination,
            service,
            flags: ResponseFlags::NONE,
            details_code: Cow::Borrowed(""),
            security: ConnectionSecurity::Unknown,
            bytes_received: 0,
            bytes_sent: 0,
            start,
            duration: Duration::ZERO,
            denial: None,
            details: None,
        }
    }
}

/// The name Istio gives a service's port seen from a client: `outbound|80|v1|reviews.default.svc.cluster.local`.
pub fn outbound_cluster(port: u16, subset: Option<&str>, host: &str) -> Arc<str> {
    format!("outbound|{port}|{}|{host}", subset.unwrap_or("")).into()
}

/// The name Istio gives a workload's own port: `inbound|9080||`.
pub fn inbound_cluster(port: u16) -> Arc<str> {
    format!("inbound|{port}||").into()
}
