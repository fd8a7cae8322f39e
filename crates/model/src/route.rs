//! Routing tables: what a request to a service (or to a gateway's host) is matched against and what then happens to it.
//!
//! Invariant: [`HttpRoutes::entries`] are in order of precedence; the first that matches wins. The compiler has sorted
//! Gateway API routes by that API's precedence and kept the order of VirtualServices as written.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    matching::{HeaderMatch, PathMatch, QueryMatch, StringMatch},
    names::{Namespace, ServiceId},
    origin::Origin,
    units::{Millis, Percent, Port, Weight},
};

/// The routes of one service as one variant of consumers sees them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RouteTable {
    /// The service.
    pub service: ServiceId,
    /// The consumer namespace this variant is for; `None` is the common one.
    pub variant: Option<Namespace>,
    /// Routes by service port. A port without an entry goes to the service itself.
    pub ports: BTreeMap<Port, PortRoutes>,
}

/// The routes of one port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PortRoutes {
    /// HTTP routes; `None`: everything goes to the service itself.
    pub http: Option<HttpRoutes>,
    /// TCP and TLS routes, in order; empty: everything goes to the service itself.
    pub tcp: Vec<TcpEntry>,
}

/// An ordered HTTP routing table. A request that no entry matches is answered 404 (`NR`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct HttpRoutes {
    /// Matches in order of precedence.
    pub entries: Vec<HttpEntry>,
    /// The rules that entries point at; several entries share one when its matches are alternatives.
    pub rules: Vec<HttpRule>,
}

/// One alternative of a rule's matches.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HttpEntry {
    /// What a request must look like.
    pub matcher: HttpMatch,
    /// Index into [`HttpRoutes::rules`].
    pub rule: u32,
    /// The match in the user's YAML.
    pub origin: Origin,
}

/// All of these must hold. The default matches every request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct HttpMatch {
    /// The normalised path.
    pub path: Option<PathMatch>,
    /// Compare the path ignoring ASCII case (Istio `ignoreUriCase`; exact and prefix only).
    pub ignore_path_case: bool,
    /// The method.
    pub method: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The authority, with its port when the request has one.
    pub authority: Option<StringMatch>,
    /// Headers, all of them.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters, all of them.
    pub query: Vec<QueryMatch>,
    /// The caller's namespace (Istio `sourceNamespace`).
    pub source_namespace: Option<Namespace>,
    /// The caller's labels (Istio `sourceLabels`).
    pub source_labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// What happens to a request that matched.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HttpRule {
    /// The route's name in logs (`%ROUTE_NAME%`); empty when it has none.
    pub name: Arc<str>,
    /// The rule in the user's YAML.
    pub origin: Origin,
    /// The outcome.
    pub action: Action,
    /// Changes of path and authority, before forwarding.
    pub rewrite: Rewrite,
    /// Changes of the request's headers.
    pub request_headers: HeaderEdits,
    /// Changes of the response's headers.
    pub response_headers: HeaderEdits,
    /// From the request's head to the response's end, all attempts together. `None`: no limit.
    pub timeout: Option<Millis>,
    /// Retries.
    pub retry: RetryPolicy,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// Copies of the request whose answers are thrown away.
    pub mirrors: Vec<Mirror>,
}

/// The outcome of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To one of these, by weight. Weights that sum to 0, or no backend at all: 500.
    Forward(Vec<Backend>),
    /// An answer that sends the client elsewhere.
    Redirect(Redirect),
    /// A fixed answer (Istio `directResponse`).
    Respond {
        /// Status code.
        status: u16,
        /// Body; empty when none.
        body: Arc<str>,
    },
    /// The rule asked for something that is refused or does not resolve: this status, and why.
    Fail {
        /// Status code, 500 by Gateway API's rules.
        status: u16,
        /// What is wrong, for logs and explain.
        reason: Arc<str>,
    },
}

/// One weighted backend.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Its share.
    pub weight: Weight,
    /// Where to.
    pub target: BackendTarget,
    /// Header changes for this backend only.
    pub request_headers: HeaderEdits,
    /// Header changes for this backend's responses only.
    pub response_headers: HeaderEdits,
    /// Limit of one attempt to this backend (Gateway API `backendRequest`), if the rule has one.
    pub timeout: Option<Millis>,
    /// The backend reference in the user's YAML.
    pub origin: Origin,
}

/// Where a backend's share goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendTarget {
    /// A service's port, or a subset of it.
    Service {
        /// The service.
        service: ServiceId,
        /// The service's port.
        port: Port,
        /// A subset named by a DestinationRule.
        subset: Option<Arc<str>>,
    },
    /// A reference that does not resolve: its share is answered with this status.
    Unresolved {
        /// 500 by Gateway API's rules; 503 for Istio's.
        status: u16,
        /// What does not resolve.
        reason: Arc<str>,
    },
}

/// Header changes, applied in this order: set, add, remove.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct HeaderEdits {
    /// Overwrites.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Appends.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Removes.
    pub remove: Vec<Arc<str>>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Changes of the request's target.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Rewrite {
    /// The path.
    pub path: Option<PathRewrite>,
    /// The authority.
    pub authority: Option<Arc<str>>,
}

/// A change of the path; the query stays.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRewrite {
    /// The whole path becomes this.
    Full(Arc<str>),
    /// The matched prefix becomes this (Gateway API `ReplacePrefixMatch`: by segments, so `/foo` -> `/` makes `/foo/bar` `/bar`).
    SegmentPrefix(Arc<str>),
    /// The matched prefix becomes this, byte by byte (Istio `rewrite.uri`); the whole path when the match was exact or a regex.
    Prefix(Arc<str>),
    /// Every match of the pattern becomes the substitution, with `\1` for groups (Istio `uriRegexRewrite`).
    Regex {
        /// The pattern.
        pattern: Arc<str>,
        /// The substitution.
        substitution: Arc<str>,
    },
}

/// A redirect. Parts that are `None` stay as the request had them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: RedirectPort,
    /// The path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Which port a redirect names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectPort {
    /// Gateway API: the scheme's well-known port if a scheme is given, else the listener's port; well-known ports are left out.
    #[default]
    Derived,
    /// The request's own port (Istio `FROM_REQUEST_PORT` and its default for an unchanged scheme).
    FromRequest,
    /// The scheme's default, so none is written (Istio `FROM_PROTOCOL_DEFAULT`).
    ProtocolDefault,
    /// This one.
    Port(Port),
}

/// When to try again. Under the default profile (`safe`, PAINS P7) a request that may have reached the application is
/// repeated only when its method is idempotent or the rule's author asked for it by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts after the first. 0: never.
    pub attempts: u8,
    /// Limit of one attempt.
    pub per_try_timeout: Option<Millis>,
    /// What is worth another attempt. An attempt that certainly never reached the application always is.
    pub on: Vec<RetryCondition>,
    /// First pause; doubled each time with full jitter, up to ten times this.
    pub backoff: Millis,
    /// Whether the user wrote these conditions, which then also hold for methods that are not idempotent.
    pub explicit: bool,
}

impl RetryPolicy {
    /// No retry at all.
    pub const fn never() -> Self {
        Self { attempts: 0, per_try_timeout: None, on: Vec::new(), backoff: Millis(25), explicit: false }
    }

    /// The mesh's default: two more attempts for what is safe to repeat.
    pub fn safe() -> Self {
        Self {
            attempts: 2,
            per_try_timeout: None,
            on: vec![
                RetryCondition::ConnectFailure,
                RetryCondition::RefusedStream,
                RetryCondition::Unavailable,
                RetryCondition::Cancelled,
                RetryCondition::Reset,
                RetryCondition::Status(503),
            ],
            backoff: Millis(25),
            explicit: false,
        }
    }
}

/// What is worth another attempt (Envoy `retry_on`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryCondition {
    /// The connection could not be made.
    ConnectFailure,
    /// The peer refused the stream without processing it.
    RefusedStream,
    /// The connection broke before a response.
    Reset,
    /// It broke before any byte of the request was sent on.
    ResetBeforeRequest,
    /// A 5xx, a reset or a timeout of the attempt.
    ServerError,
    /// 502, 503, 504, a reset or a timeout of the attempt.
    GatewayError,
    /// 409 (Envoy `retriable-4xx`).
    Conflict,
    /// This status code.
    Status(u16),
    /// gRPC status CANCELLED.
    Cancelled,
    /// gRPC status DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// gRPC status INTERNAL.
    Internal,
    /// gRPC status RESOURCE_EXHAUSTED.
    ResourceExhausted,
    /// gRPC status UNAVAILABLE.
    Unavailable,
}

/// Injected faults; delay first, then abort.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Fault {
    /// Hold this share for this long.
    pub delay: Option<(Percent, Millis)>,
    /// Answer this share with this.
    pub abort: Option<(Percent, AbortWith)>,
}

/// What an aborted request gets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortWith {
    /// This HTTP status.
    Http(u16),
    /// This gRPC status, in trailers-only form.
    Grpc(u8),
}

/// A copy of the request to another service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Mirror {
    /// Which share of the requests.
    pub share: Percent,
    /// Where to.
    pub target: BackendTarget,
    /// The mirror in the user's YAML.
    pub origin: Origin,
}

/// A TCP or TLS route.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TcpEntry {
    /// What a connection must look like.
    pub matcher: TcpMatch,
    /// Where to, by weight.
    pub backends: Vec<Backend>,
    /// The route in the user's YAML.
    pub origin: Origin,
}

/// All of these must hold. The default matches every connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct TcpMatch {
    /// SNI names (exact or `*.suffix`), any of them; empty: any or none.
    pub sni: Vec<Arc<str>>,
    /// The original destination's address, any of them; empty: any.
    pub destination: Vec<IpNet>,
    /// The caller's namespace.
    pub source_namespace: Option<Namespace>,
    /// The caller's labels.
    pub source_labels: BTreeMap<Arc<str>, Arc<str>>,
}
