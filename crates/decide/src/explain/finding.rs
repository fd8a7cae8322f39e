//! What an explanation consists of, and how it reads.
//!
//! Invariant: text and JSON say the same; where a thing comes from the user's YAML, its origin is cited.

use std::fmt;

use leno_model::{Origin, ServiceId};
use serde::Serialize;

use crate::{limits::Limits, trace::Step};

/// What happens to one call, and why.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explanation {
    /// Who calls.
    pub caller: String,
    /// What it calls, as given.
    pub target: String,
    /// What the target is.
    pub lookup: Lookup,
    /// What the caller's proxy does with it; `None` when the call ends at the look-up.
    pub route: Option<Routing>,
    /// What the proxies at the other end say, one for each server asked that is an endpoint of a branch.
    pub servers: Vec<ServerFinding>,
}

/// What a target is.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Lookup {
    /// A service.
    Service {
        /// Its id.
        service: ServiceId,
        /// The port that was addressed.
        port: u16,
        /// What is spoken there.
        protocol: String,
        /// Outside the mesh.
        external: bool,
        /// Whether everything to call it is here.
        loaded: bool,
    },
    /// A listener of this gateway.
    Listener {
        /// Its name.
        name: String,
        /// The listener in the user's YAML.
        origin: Origin,
    },
    /// A known service without such a port.
    NoSuchPort {
        /// The service.
        service: ServiceId,
        /// The ports it has.
        ports: Vec<u16>,
    },
    /// A service that is not exposed to the caller's namespace.
    Hidden {
        /// The service.
        service: ServiceId,
    },
    /// No listener serves the host: 404; or another one does than the handshake chose: 421.
    NoListener {
        /// 404 or 421.
        status: u16,
    },
    /// Nothing that the mesh knows.
    Unknown,
}

/// What the caller's proxy does.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Routing {
    /// The matches that were tried, in order.
    pub tried: Vec<Step>,
    /// The rule that applies; `None`: none does.
    pub rule: Option<Origin>,
    /// What it says.
    pub action: ActionFinding,
    /// The path that is sent on, when it is changed.
    pub path: Option<String>,
    /// The limit of the whole request, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The retries in force.
    pub retries: String,
    /// The fault that is injected.
    pub fault: Option<String>,
    /// Where copies go.
    pub mirrors: Vec<MirrorFinding>,
}

/// Where a copy of the request goes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MirrorFinding {
    /// The share of the requests, in percent.
    pub percent: f64,
    /// Where to.
    pub to: String,
    /// The mirror in the user's YAML.
    pub origin: Origin,
}

/// What a rule says.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionFinding {
    /// Forward to one of these.
    Forward(Vec<Branch>),
    /// Answer with a status, and a location or text.
    Answer {
        /// The status.
        status: u16,
        /// Location, body or reason.
        text: String,
    },
}

/// One branch of a split.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Branch {
    /// Its share, in percent.
    pub percent: f64,
    /// Where to.
    pub to: String,
    /// The backend in the user's YAML.
    pub origin: Origin,
    /// What is there.
    pub state: BranchState,
}

/// What is at the end of a branch.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a few of these live in one explanation")]
pub enum BranchState {
    /// Endpoints.
    Ready {
        /// The DestinationRule (or default) that applies.
        destination: Origin,
        /// Endpoints of the service.
        endpoints: usize,
        /// Those of the port and subset that take new work.
        ready: usize,
        /// Endpoints by nearness: the next tier is used when one has no usable endpoint.
        tiers: Vec<TierFinding>,
        /// How one is chosen.
        balancer: String,
        /// TLS towards them.
        tls: String,
        /// Limits in force.
        limits: Limits,
        /// Clusters whose endpoints are the last known ones.
        stale: Vec<String>,
    },
    /// Nothing: its share gets this status.
    Unresolved {
        /// The status.
        status: u16,
        /// What does not resolve.
        reason: String,
    },
}

/// One tier of endpoints.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TierFinding {
    /// Endpoints by place, with the group's share in the tier where there are several.
    pub groups: Vec<(u32, Vec<String>)>,
}

/// What the proxy of a server says.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ServerFinding {
    /// The workload.
    pub workload: String,
    /// Its port.
    pub port: u16,
    /// The mTLS mode there.
    pub mtls: String,
    /// The PeerAuthentication (or default) that says so.
    pub mtls_origin: Origin,
    /// How this caller reaches it.
    pub transport: String,
    /// Whether the connection is admitted and the request allowed.
    pub allowed: bool,
    /// Why.
    pub because: String,
    /// The policy's `namespace/name`, where one decides.
    pub policy: Option<String>,
    /// The index of its rule.
    pub rule: Option<usize>,
    /// The rule or field in the user's YAML.
    pub origin: Option<Origin>,
    /// The rules that were looked at.
    pub looked_at: Vec<Step>,
}

impl Explanation {
    /// Whether the caller gets what it asks for: somebody takes the call, a rule answers without an error, and no server
    /// that it may reach refuses it.
    pub fn is_served(&self) -> bool {
        let taken = self.route.as_ref().is_some_and(|route| match &route.action {
            ActionFinding::Forward(branches) => branches.iter().any(Branch::is_there),
            // 0 is a connection that is closed.
            ActionFinding::Answer { status, .. } => (100..400).contains(status),
        });
        taken && self.servers.iter().all(|server| server.allowed)
    }
}

impl Branch {
    fn is_there(&self) -> bool {
        match &self.state {
            BranchState::Ready { ready, .. } => self.percent > 0.0 && *ready > 0,
            BranchState::Unresolved { .. } => false,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} calls {}", self.caller, self.target)?;
        writeln!(f, "  {}", self.lookup)?;
        if let Some(route) = &self.route {
            write!(f, "{route}")?;
        }
        self.servers.iter().try_for_each(|server| write!(f, "{server}"))
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, port, protocol, external, loaded } => {
                write!(f, "is service {service} port {port} ({protocol})")?;
                f.write_str(if *external { ", outside the mesh" } else { "" })?;
                f.write_str(if *loaded { "" } else { "; not loaded: held, then 503" })
            }
            Self::Listener { name, origin } => write!(f, "is served by listener {name}: {origin}"),
            Self::NoSuchPort { service, ports } => {
                write!(f, "is service {service}, which has no such port, but {ports:?}")
            }
            Self::Hidden { service } => {
                write!(f, "is service {service}, which is not exposed to the caller's namespace")
            }
            Self::NoListener { status } => write!(f, "is served by no listener: {status}"),
            Self::Unknown => f.write_str("is nothing that the mesh knows: passed through or refused"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.held { "+" } else { "-" };
        write!(f, "{mark} {}: {}", self.origin, self.what)
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tried.iter().try_for_each(|step| writeln!(f, "    {step}"))?;
        match &self.rule {
            Some(origin) => writeln!(f, "  route: {origin}")?,
            None => writeln!(f, "  route: none matches")?,
        }
        if let Some(path) = &self.path {
            writeln!(f, "    path becomes {path}")?;
        }
        match &self.action {
            ActionFinding::Answer { status, text } => return writeln!(f, "    answers {status}: {text}"),
            ActionFinding::Forward(branches) => {
                branches.iter().try_for_each(|branch| write!(f, "{branch}"))?
            }
        }
        match self.timeout_ms {
            Some(ms) => writeln!(f, "    timeout {ms} ms")?,
            None => writeln!(f, "    no timeout")?,
        }
        writeln!(f, "    retries: {}", self.retries)?;
        if let Some(fault) = &self.fault {
            writeln!(f, "    fault: {fault}")?;
        }
        let mut mirrors = self.mirrors.iter();
        mirrors.try_for_each(|mirror| {
            writeln!(f, "    mirrors {}% to {}: {}", mirror.percent, mirror.to, mirror.origin)
        })
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    {:.4}% to {}: {}", self.percent, self.to, self.origin)?;
        match &self.state {
            BranchState::Unresolved { status, reason } => writeln!(f, "      gets {status}: {reason}"),
            BranchState::Ready { destination, endpoints, ready, tiers, balancer, tls, limits, stale } => {
                writeln!(f, "      {ready} of {endpoints} endpoints, {balancer}, {tls}: {destination}")?;
                for (nth, tier) in tiers.iter().enumerate() {
                    for (weight, endpoints) in &tier.groups {
                        let share =
                            if tier.groups.len() > 1 { format!(" ({weight})") } else { String::new() };
                        writeln!(f, "      tier {}{share}: {}", nth + 1, endpoints.join(", "))?;
                    }
                }
                if !stale.is_empty() {
                    writeln!(f, "      last known endpoints of {}", stale.join(", "))?;
                }
                writeln!(
                    f,
                    "      at most {} connections, {} requests, {} waiting; {} to connect",
                    limits.max_connections,
                    limits.max_requests,
                    limits.max_pending_requests,
                    limits.connect_timeout
                )
            }
        }
    }
}

impl fmt::Display for ServerFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  server {} port {}, by {}", self.workload, self.port, self.transport)?;
        writeln!(f, "    mTLS {}: {}", self.mtls, self.mtls_origin)?;
        self.looked_at.iter().try_for_each(|step| writeln!(f, "    {step}"))?;
        let verdict = if self.allowed { "ALLOWED" } else { "DENIED" };
        writeln!(f, "    {verdict}: {}", self.because)
    }
}
