//! What a case says: the types of the format. `docs/guide/testing-policy.md` describes it to users.
//!
//! Invariant: what is `None` or empty was not written and is not judged.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use leno_apis::{AnyObject, Diagnostic};
use leno_model::{Millis, Port};

/// A file of cases.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseFile {
    /// The file, as it is quoted.
    pub file: Arc<str>,
    /// Its cases, in the order of the text.
    pub cases: Vec<Case>,
}

/// Where a case is written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One case, with all the objects of its world.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// A sentence about behaviour.
    pub name: String,
    /// The sentence of the specification that it comes from.
    pub spec: Option<String>,
    /// Where that sentence stands.
    pub source: Option<String>,
    /// Where the case is written.
    pub place: Place,
    /// The objects: those of the file's `files`, of the file, and its own; a later one replaces an earlier of its name.
    pub objects: Vec<Arc<AnyObject>>,
    /// What was wrong with them when they were read.
    pub diagnostics: Vec<Diagnostic>,
    /// Who calls.
    pub from: Caller,
    /// What is called; a case without a request looks only at diagnostics and conditions.
    pub request: Option<Request>,
    /// What must happen.
    pub expect: Expect,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody without a proxy.
    Outside,
    /// A workload of the mesh.
    Workload(WorkloadName),
}

/// A workload by namespace and its pod's, its owner's, or its `app` label's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address.
    pub target: Target,
    /// The method.
    pub method: String,
    /// Headers, lower-case names, in the order of the text.
    pub headers: Vec<(String, String)>,
    /// The name that a TLS client asks for.
    pub sni: Option<String>,
    /// Not through the caller's proxy: straight to this workload.
    pub to: Option<WorkloadName>,
    /// With [`Self::to`]: the identity that the caller proves by mTLS; without one it speaks plaintext.
    pub identity: Option<String>,
    /// The caller's address.
    pub source_ip: Option<IpAddr>,
    /// Through this gateway.
    pub gateway: Option<WorkloadName>,
}

/// The address of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A request.
    Http {
        /// `http` or `https`.
        scheme: String,
        /// The host, without its port.
        host: String,
        /// The port.
        port: Port,
        /// Path and query as the client sends them.
        path: String,
    },
    /// A connection.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: Port,
    },
}

impl Target {
    /// The host, without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Http { host, .. } | Self::Tcp { host, .. } => host,
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> Port {
        match self {
            Self::Http { port, .. } | Self::Tcp { port, .. } => *port,
        }
    }
}

/// Header names and their values; `None`: the header must be absent.
pub type HeaderValues = BTreeMap<String, Option<String>>;

/// A limit that may be "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// There must be none.
    None,
    /// This one.
    After(Millis),
}

/// What must happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// Shares in percent by service, `service/subset` or owning workload.
    pub backends: Option<BTreeMap<String, f64>>,
    /// The status that the caller gets; a forwarded request is taken to be answered 200.
    pub status: Option<u16>,
    /// The `location` of a redirect.
    pub location: Option<String>,
    /// The body of a direct response.
    pub body: Option<String>,
    /// A part of the reason why it fails.
    pub reason: Option<String>,
    /// What the application receives.
    pub forwarded: Option<ForwardedExpectation>,
    /// What the caller receives.
    pub response_headers: HeaderValues,
    /// The limit of the whole request.
    pub timeout: Option<Limit>,
    /// The limit of one attempt.
    pub attempt_timeout: Option<Limit>,
    /// Retries.
    pub retries: Option<RetryExpectation>,
    /// Injected faults.
    pub fault: Option<FaultExpectation>,
    /// Mirrors and their shares in percent; empty: no mirror.
    pub mirror: Option<BTreeMap<String, f64>>,
    /// It is refused by policy.
    pub denied: Option<DenialExpectation>,
    /// It is admitted by policy (true) or not.
    pub allowed: Option<bool>,
    /// The hop is mTLS (true) or plaintext.
    pub mtls: Option<bool>,
    /// Nothing matches.
    pub no_route: Option<bool>,
    /// The server wants mTLS and the caller has none.
    pub plaintext_refused: Option<bool>,
    /// The host is no service: the connection goes on as it is.
    pub passthrough: Option<bool>,
    /// What is spoken on the port.
    pub protocol: Option<String>,
    /// Parts of the destination's policy.
    pub destination: Option<serde_json::Value>,
    /// Parts of what the caller's own proxy is told about it.
    pub workload: Option<serde_json::Value>,
    /// Parts of the gateway's listener that takes the request.
    pub listener: Option<serde_json::Value>,
    /// Codes or parts of diagnostics that must be reported.
    pub diagnostics: Vec<String>,
    /// Codes or parts of diagnostics that must not be reported.
    pub no_diagnostics: Vec<String>,
    /// Conditions: object (`HTTPRoute shop/reviews`) -> type -> `True`, `False`, or one of them and a reason.
    pub conditions: BTreeMap<String, BTreeMap<String, String>>,
}

impl Expect {
    /// Whether anything is expected that needs a request.
    #[must_use]
    pub fn needs_request(&self) -> bool {
        let rest = Self {
            diagnostics: Vec::new(),
            no_diagnostics: Vec::new(),
            conditions: BTreeMap::new(),
            workload: None,
            ..self.clone()
        };
        rest != Self::default()
    }
}

/// What the application receives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedExpectation {
    /// Path and query.
    pub path: Option<String>,
    /// The authority.
    pub host: Option<String>,
    /// Headers.
    pub headers: HeaderValues,
}

/// Retries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryExpectation {
    /// Attempts after the first.
    pub attempts: Option<u8>,
    /// Limit of one attempt.
    pub per_try_timeout: Option<Limit>,
    /// All conditions, in any order.
    pub on: Option<Vec<String>>,
    /// First pause.
    pub backoff: Option<Millis>,
}

/// Injected faults; each `None` must not be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultExpectation {
    /// Share in percent, and how long.
    pub delay: Option<(f64, Millis)>,
    /// Share in percent, and the status (`503` or `grpc 14`).
    pub abort: Option<(f64, String)>,
}

/// A refusal by policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenialExpectation {
    /// The policy, `namespace/name`, or `none` when no ALLOW policy permits.
    pub policy: Option<String>,
    /// The number of the rule, from 0.
    pub rule: Option<u32>,
}
