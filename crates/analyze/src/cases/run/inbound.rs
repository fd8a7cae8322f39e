//! The server's side of a case: what the proxy beside a workload says to a connection and its request.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use leno_decide::{
    Admission, ConnectionFacts, Outbound, Recorder, RequestFacts, Tables, Verdict, WhoAmI, admit_connection,
    authorize,
};
use leno_decide::{
    DenyReason,
    path::{PathError, PathPolicy, normalise},
};
use leno_model::{Port, Protocol, SpiffeId, Workload, WorkloadId};

use super::world::CaseWorld;
use crate::cases::{
    format::{Request, Target, WorkloadName},
    observed::{Observed, ObservedDenial, Outcome},
};

/// The address of callers of which nothing else is said (TEST-NET-3).
pub(super) const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// A request as it reaches a server.
#[derive(Clone)]
pub(super) struct Arriving {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Arriving {
    /// As the client sends it; `None` for a connection.
    ///
    /// # Errors
    /// When the path is one that every proxy refuses.
    pub(super) fn of(request: &Request) -> Result<Option<Self>, PathError> {
        let Target::Http { scheme, host, port, path } = &request.target else { return Ok(None) };
        let default = if scheme == "https" { 443 } else { 80 };
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &request.headers {
            let known = headers.entry(name.clone()).or_default();
            *known = if known.is_empty() { value.clone() } else { format!("{known},{value}") };
        }
        let own = if *port == default { host.clone() } else { format!("{host}:{port}") };
        let path = normalise(path, &PathPolicy::default())?.into_owned();
        Ok(Some(Self {
            method: request.method.clone(),
            scheme: scheme.clone(),
            authority: headers.remove("host").unwrap_or(own),
            path,
            headers,
        }))
    }

    /// Calls `use_facts` with the request as decisions see it.
    pub(super) fn with_facts<T>(&self, use_facts: impl FnOnce(&RequestFacts<'_>) -> T) -> T {
        let headers: Vec<(String, String)> = self.headers.clone().into_iter().collect();
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        use_facts(&RequestFacts {
            method: &self.method,
            path,
            query,
            scheme: &self.scheme,
            authority: &self.authority,
            headers: &headers,
            remote_ip: None,
        })
    }
}

/// Somebody at a server's door.
pub(super) struct Visitor<'v> {
    pub(super) peer: Option<&'v SpiffeId>,
    pub(super) source_ip: IpAddr,
    pub(super) sni: Option<&'v str>,
    pub(super) request: Option<&'v Arriving>,
}

/// What a server says.
pub(super) enum Answer {
    Admitted,
    PlaintextRefused,
    Denied(ObservedDenial),
}

/// Asks the proxy beside a workload; one outside the mesh admits everybody.
pub(super) fn ask(
    world: &CaseWorld,
    id: &WorkloadId,
    port: Port,
    visitor: &Visitor<'_>,
    trace: &mut Recorder,
) -> Answer {
    let Some(tables) = world.tables_of(id) else { return Answer::Admitted };
    let Some(inbound) = tables.inbound() else { return Answer::Admitted };
    let rule = inbound.port(port);
    if admit_connection(&rule, visitor.peer.is_some(), trace) == Admission::PlaintextRefused {
        return Answer::PlaintextRefused;
    }
    let connection = ConnectionFacts {
        peer: visitor.peer,
        source_ip: visitor.source_ip,
        remote_ip: visitor.source_ip,
        destination_ip: inbound.workload.address.unwrap_or(SOMEWHERE),
        destination_port: port,
        sni: visitor.sni,
    };
    // A port that is declared as TCP or TLS shows no requests, whatever is sent there.
    let request = visitor.request.filter(|_| !matches!(rule.protocol, Protocol::Tcp | Protocol::Tls));
    let verdict = match request {
        Some(request) => {
            request.with_facts(|facts| authorize(&inbound.policies, &connection, Some(facts), trace))
        }
        None => authorize(&inbound.policies, &connection, None, trace),
    };
    match verdict {
        Verdict::Allow { .. } => Answer::Admitted,
        Verdict::Deny { by } => Answer::Denied(denial(&by)),
    }
}

fn denial(by: &DenyReason) -> ObservedDenial {
    match by {
        DenyReason::NothingAllows(_) => ObservedDenial { policy: None, rule: None },
        DenyReason::Withheld(_) | DenyReason::Missing(_) | DenyReason::Rule(_) => ObservedDenial {
            policy: by.policy().map(str::to_owned),
            rule: by.rule().and_then(|rule| u32::try_from(rule).ok()),
        },
    }
}

/// A request straight to a workload, past the caller's proxy.
pub(super) fn straight(
    world: &CaseWorld,
    (request, arriving): (&Request, Option<Arriving>),
    to: &WorkloadName,
    observed: &mut Observed,
    trace: &mut Recorder,
) -> Result<(), String> {
    let workload = world.workload(to)?;
    let identity = request.identity.as_deref().map(SpiffeId::parse).transpose();
    let peer = identity.map_err(|problem| format!("the identity cannot be: {problem}"))?;
    let port = port_of(workload, request.target.port());
    let visitor = Visitor {
        peer: peer.as_ref(),
        source_ip: request.source_ip.unwrap_or(SOMEWHERE),
        sni: request.sni.as_deref(),
        request: arriving.as_ref(),
    };
    observed.mtls = Some(peer.is_some());
    observed.protocol = protocol_of(workload, port);
    conclude(observed, ask(world, &workload.id, port, &visitor, trace));
    Ok(())
}

/// The application's port behind a service port; the port itself when no service leads to it.
fn port_of(workload: &Workload, port: Port) -> Port {
    let leads =
        |inbound: &&leno_model::InboundPort| inbound.services.iter().any(|service| service.port == port);
    workload.ports.iter().find(leads).map_or(port, |inbound| inbound.port)
}

fn protocol_of(workload: &Workload, port: Port) -> Option<String> {
    workload.ports.iter().find(|inbound| inbound.port == port).map(|inbound| inbound.protocol.to_string())
}

pub(super) fn conclude(observed: &mut Observed, answer: Answer) {
    observed.outcome = Some(match answer {
        Answer::Admitted => Outcome::Forwarded,
        Answer::PlaintextRefused => Outcome::PlaintextRefused,
        Answer::Denied(denial) => {
            observed.denial = Some(denial);
            Outcome::Denied
        }
    });
}

/// What several servers that a request may reach say together; whether there were any.
pub(super) fn conclude_all(observed: &mut Observed, answers: impl Iterator<Item = Answer>) -> bool {
    for answer in answers {
        let before = observed.outcome;
        conclude(observed, answer);
        if before.is_some_and(|before| Some(before) != observed.outcome) {
            observed.outcome = Some(Outcome::Mixed);
            return true;
        }
    }
    observed.outcome.is_some()
}

/// A caller without a proxy, through the service's address: plaintext to any of its endpoints.
pub(super) fn outside(
    world: &CaseWorld,
    (request, arriving): (&Request, Option<Arriving>),
    observed: &mut Observed,
    trace: &mut Recorder,
) -> Result<(), String> {
    let nobody = WhoAmI::new(WorkloadId::new("default", "outside"));
    let tables = world.tables(nobody);
    let (service, port) = match tables.outbound_by_host(request.target.host(), request.target.port()) {
        Outbound::Known(known) => (known.entry.service.clone(), known.port),
        Outbound::NoSuchPort(entry) => return Err(format!("{} has no such port", entry.service)),
        Outbound::Hidden(entry) => return Err(format!("{} is not visible", entry.service)),
        Outbound::Unknown => {
            observed.outcome = Some(Outcome::Passthrough);
            return Ok(());
        }
    };
    let tables: Tables = world.load(&tables, &service);
    let set =
        tables.endpoints(&service).ok_or_else(|| format!("the endpoints of {service} are not known"))?;
    observed.mtls = Some(false);
    observed.protocol = Some(port.protocol.to_string());
    let visitor = Visitor {
        peer: None,
        source_ip: request.source_ip.unwrap_or(SOMEWHERE),
        sni: request.sni.as_deref(),
        request: arriving.as_ref(),
    };
    let answers = set.endpoints.iter().filter_map(|endpoint| {
        let target = *endpoint.ports.get(&port.port)?;
        Some(ask(world, &endpoint.workload, target, &visitor, trace))
    });
    if !conclude_all(observed, answers) {
        return Err(format!("{service} has no endpoint"));
    }
    Ok(())
}
