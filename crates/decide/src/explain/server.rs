//! What the proxies at the other end say, and a gateway about its own clients.
//!
//! Invariant: a server judges what it is sent: the request after the changes of the route and its branch.

use std::{borrow::Cow, net::IpAddr};

use leno_model::{Backend, ClientTls, HeaderEdits, HttpRule, Protocol, SpiffeId, Tunnel};

use super::{Call, ServerFinding};
use crate::{
    authorize::{AllowReason, Verdict, authorize},
    facts::{ConnectionFacts, Headers, RequestFacts},
    inbound::{Admission, Inbound, admit_connection},
    outbound::ReadyBackend,
    tables::Tables,
    trace::Recorder,
};

/// An address of which nothing is known.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// A request as a branch of a route sends it on.
pub(super) struct Sent<'s> {
    request: &'s RequestFacts<'s>,
    path: &'s str,
    authority: &'s str,
    headers: Edited<'s>,
}

/// Headers after the edits of a rule and then those of a backend.
struct Edited<'s> {
    given: &'s dyn Headers,
    edits: [&'s HeaderEdits; 2],
}

impl<'s> Sent<'s> {
    /// The request of a rule's branch; `path` is what the rule makes of the path.
    pub(super) fn new(
        request: &'s RequestFacts<'s>,
        rule: &'s HttpRule,
        backend: &'s Backend,
        path: Option<&'s str>,
    ) -> Self {
        let headers =
            Edited { given: request.headers, edits: [&rule.request_headers, &backend.request_headers] };
        // An edit of `host` is one of the authority.
        let by_edit = ["host", ":authority"].into_iter().find_map(|name| headers.set_to(name));
        let by_rule = rule.rewrite.authority.as_deref();
        let authority = by_edit.or(by_rule).unwrap_or(request.authority);
        Self { request, path: path.unwrap_or(request.path), authority, headers }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { path: self.path, authority: self.authority, headers: &self.headers, ..*self.request }
    }
}

impl<'s> Edited<'s> {
    fn set_to(&self, name: &str) -> Option<&'s str> {
        let by_name = |edits: &'s HeaderEdits| edits.set.iter().find(|(key, _)| **key == *name);
        self.edits.into_iter().rev().find_map(by_name).map(|(_, value)| &**value)
    }
}

impl Headers for Edited<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut value = self.given.value(name);
        for HeaderEdits { set, add, remove } in self.edits {
            if let Some((_, new)) = set.iter().rfind(|(key, _)| **key == *name) {
                value = Some(Cow::Borrowed(new.as_bytes()));
            }
            for (_, more) in add.iter().filter(|(key, _)| **key == *name) {
                value = Some(match value {
                    Some(known) => Cow::Owned([&*known, more.as_bytes()].join(&b',')),
                    None => Cow::Borrowed(more.as_bytes()),
                });
            }
            if remove.iter().any(|key| **key == *name) {
                value = None;
            }
        }
        value
    }
}

/// What a server's proxy says, when the backend leads to it.
pub(super) fn of_server(
    call: &Call<'_>,
    sent: Option<&Sent<'_>>,
    server: &Tables,
    backend: &ReadyBackend<'_>,
) -> Option<ServerFinding> {
    let inbound = server.inbound()?;
    let mut endpoints =
        backend.candidates().into_iter().filter_map(|at| backend.endpoints.endpoints.get(at as usize));
    let endpoint = endpoints.find(|endpoint| endpoint.workload == inbound.workload.id)?;
    let port = *endpoint.ports.get(&backend.port)?;
    let is_mtls = match (&backend.policy.tls, &endpoint.tunnel) {
        (ClientTls::Auto | ClientTls::Mesh, Tunnel::Mesh | Tunnel::Gateway { .. }) => true,
        (ClientTls::Auto | ClientTls::Mesh, Tunnel::Plain | Tunnel::Dns { .. })
        | (ClientTls::Disable | ClientTls::Simple { .. }, _) => false,
    };
    let caller_ip = call.tables.inbound().and_then(|own| own.workload.address).unwrap_or(UNKNOWN);
    let connection = ConnectionFacts {
        peer: identity(call.tables).filter(|_| is_mtls),
        source_ip: caller_ip,
        remote_ip: caller_ip,
        destination_ip: endpoint.address,
        destination_port: port,
        sni: call.sni,
    };
    let transport = match connection.peer {
        Some(peer) => format!("mTLS as {peer}"),
        None if is_mtls => "mTLS".to_owned(),
        None => "plaintext".to_owned(),
    };
    let facts = sent.map(Sent::facts);
    Some(verdict(inbound, &connection, is_mtls, facts.as_ref(), transport))
}

/// What a gateway's own policies say of a client from outside.
pub(super) fn of_gateway(call: &Call<'_>) -> Option<ServerFinding> {
    let own = call.tables.inbound()?;
    let connection = ConnectionFacts {
        peer: None,
        source_ip: UNKNOWN,
        remote_ip: UNKNOWN,
        destination_ip: own.workload.address.unwrap_or(UNKNOWN),
        destination_port: call.port,
        sni: call.sni,
    };
    // A gateway without policies takes everybody: nothing to tell.
    let has_policies = !own.workload.policies.is_empty();
    has_policies.then(|| verdict(own, &connection, false, call.request, "its listener".to_owned()))
}

/// What the proxy beside a workload (or a gateway) says of a connection and its request.
fn verdict(
    inbound: &Inbound,
    connection: &ConnectionFacts<'_>,
    is_mtls: bool,
    request: Option<&RequestFacts<'_>>,
    transport: String,
) -> ServerFinding {
    let port = connection.destination_port;
    let rule = inbound.port(port);
    let mut trace = Recorder::default();
    let admission = admit_connection(&rule, is_mtls, &mut trace);
    // A port that is declared as TCP or TLS shows no requests, whatever is sent there.
    let request = request.filter(|_| !matches!(rule.protocol, Protocol::Tcp | Protocol::Tls));
    let verdict = authorize(&inbound.policies, connection, request, &mut trace);
    let mut finding = ServerFinding {
        workload: inbound.workload.id.to_string(),
        port,
        mtls: rule.mtls.to_string(),
        mtls_origin: rule.mtls_origin.clone(),
        transport,
        allowed: false,
        because: String::new(),
        policy: None,
        rule: None,
        origin: None,
        looked_at: trace.steps,
    };
    tell(&mut finding, admission, &verdict);
    finding
}

fn tell(finding: &mut ServerFinding, admission: Admission, verdict: &Verdict) {
    match (admission, verdict) {
        (Admission::PlaintextRefused, _) => {
            finding.because = "only mTLS is accepted, and the call is in plaintext".to_owned();
            finding.origin = Some(finding.mtls_origin.clone());
        }
        (Admission::Admit, Verdict::Allow { by: AllowReason::NoAllowPolicy }) => {
            finding.allowed = true;
            finding.because = "no ALLOW policy selects the workload, and no DENY policy matches".to_owned();
        }
        (Admission::Admit, Verdict::Allow { by: AllowReason::Rule(rule) }) => {
            finding.allowed = true;
            finding.because = format!("{} matches", rule.origin());
            finding.policy = Some(rule.policy.policy.id.to_string());
            finding.rule = Some(rule.rule);
            finding.origin = Some(rule.origin().clone());
        }
        (Admission::Admit, Verdict::Deny { by }) => {
            finding.because = by.to_string();
            finding.policy = by.policy().map(ToOwned::to_owned);
            finding.rule = by.rule();
            finding.origin = by.origin().cloned();
        }
    }
}

/// Who the caller is towards its peers.
fn identity(tables: &Tables) -> Option<&SpiffeId> {
    let workload = tables.inbound().map(|inbound| &inbound.workload.identity);
    workload.or_else(|| tables.gateway().map(|gateway| &gateway.gateway().identity))
}
