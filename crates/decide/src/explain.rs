//! Follows one call from the caller's tables to the servers' and tells every decision in words of the user's YAML.
//!
//! Invariant: it decides with the same functions as the proxy, with a [`Recorder`] in place of [`crate::NoTrace`]; of a split it
//! shows every branch. `leno explain` uses it offline, on tables made from a compilation, and the proxy on its own.

mod finding;
mod server;

use std::net::IpAddr;

use leno_model::{
    BackendTarget, ClientTls, Endpoint, HttpRule, LoadBalancer, Locality, Mirror, Origin, Port, Protocol,
    RetryPolicy, Tunnel,
};

pub use finding::{
    ActionFinding, Branch, BranchState, Explanation, Lookup, MirrorFinding, Routing, ServerFinding,
    TierFinding,
};

use crate::{
    facts::{RequestFacts, host_of},
    gateway::HostSelection,
    limits::Limits,
    locality,
    outbound::{BackendState, Outbound, ReadyBackend},
    route::{Distribution, HttpTable, RouteOutcome, route},
    tables::Tables,
    tcp::{TcpFacts, TcpOutcome, TcpTable, route_tcp},
    trace::Recorder,
};

/// A call to explain.
#[derive(Clone, Copy)]
pub struct Call<'c> {
    /// The tables of the caller's proxy (or of a gateway).
    pub tables: &'c Tables,
    /// What is called.
    pub to: CallTarget<'c>,
    /// The port that is addressed.
    pub port: Port,
    /// The request; `None`: opaque bytes.
    pub request: Option<&'c RequestFacts<'c>>,
    /// The name in the caller's own TLS handshake, if it makes one.
    pub sni: Option<&'c str>,
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub enum CallTarget<'c> {
    /// A host, which may be short.
    Host(&'c str),
    /// An address.
    Address(IpAddr),
    /// A host of this gateway.
    GatewayHost(&'c str),
}

/// The tables of a server's proxy.
pub type Server<'s> = &'s Tables;

/// Explains a call. `servers` are those whose verdict is wanted; the ones that no branch leads to are left out. A gateway's own
/// verdict comes first.
pub fn explain(call: &Call<'_>, servers: &[Server<'_>]) -> Explanation {
    let tables = call.tables;
    let target = match call.to {
        CallTarget::Host(host) | CallTarget::GatewayHost(host) => format!("{host}:{}", call.port),
        CallTarget::Address(address) => format!("{}", std::net::SocketAddr::new(address, call.port)),
    };
    let (lookup, found) = match call.to {
        CallTarget::Host(host) => of_outbound(tables.outbound_by_host(host, call.port)),
        CallTarget::Address(address) => of_outbound(tables.outbound_by_address(address, call.port)),
        CallTarget::GatewayHost(host) => of_gateway(tables, call.port, host),
    };
    let mut findings: Vec<ServerFinding> = match call.to {
        CallTarget::GatewayHost(_) => server::of_gateway(call).into_iter().collect(),
        CallTarget::Host(_) | CallTarget::Address(_) => Vec::new(),
    };
    let route = found.map(|found| {
        // Of a port that is declared as TCP or TLS the requests are not seen, whatever is sent there.
        let request = call.request.filter(|_| !found.opaque);
        let (routing, way) = match (found.redirect, request) {
            (Some(origin), Some(request)) if request.scheme == "http" => (to_https(origin, request), None),
            (_, Some(request)) => http_routing(call, found.http, request),
            (_, None) => tcp_routing(call, found.tcp),
        };
        for (backend, _) in way.iter().flat_map(|way| way.distribution.shares()) {
            let BackendState::Ready(ready) = tables.backend(&backend.target) else { continue };
            let rule = way.as_ref().and_then(|way| way.rule);
            let sent = request
                .zip(rule)
                .map(|(request, rule)| server::Sent::new(request, rule, backend, routing.path.as_deref()));
            let of = |server: &Server<'_>| server::of_server(call, sent.as_ref(), server, &ready);
            findings.extend(servers.iter().filter_map(of));
        }
        routing
    });
    findings.dedup_by(|a, b| a == b);
    Explanation { caller: tables.me().id.to_string(), target, lookup, route, servers: findings }
}

/// Where a call goes on to.
struct Way<'t> {
    distribution: Distribution<'t>,
    /// The rule that changes the request, for requests.
    rule: Option<&'t HttpRule>,
}

/// The tables that a look-up leads to.
struct Found<'t> {
    http: &'t HttpTable,
    tcp: &'t TcpTable,
    /// Whether no requests are seen there.
    opaque: bool,
    /// The listener, when it sends plain HTTP to HTTPS.
    redirect: Option<&'t Origin>,
}

/// What a listener with `httpsRedirect` answers.
fn to_https(origin: &Origin, request: &RequestFacts<'_>) -> Routing {
    let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
    let text = format!("https://{}{}{query}", host_of(request.authority), request.path);
    Routing {
        tried: Vec::new(),
        rule: Some(origin.clone()),
        action: ActionFinding::Answer { status: 301, text },
        path: None,
        timeout_ms: None,
        retries: "none".to_owned(),
        fault: None,
        mirrors: Vec::new(),
    }
}

fn of_outbound(outbound: Outbound<'_>) -> (Lookup, Option<Found<'_>>) {
    match outbound {
        Outbound::Known(known) => {
            let lookup = Lookup::Service {
                service: known.entry.service.clone(),
                port: known.port.port,
                protocol: known.port.protocol.to_string(),
                external: known.entry.external,
                loaded: known.loaded.is_some(),
            };
            let opaque = matches!(known.port.protocol, Protocol::Tcp | Protocol::Tls);
            let found = known.loaded.map(|loaded| Found {
                http: &loaded.routes.http,
                tcp: &loaded.routes.tcp,
                opaque,
                redirect: None,
            });
            (lookup, found)
        }
        Outbound::NoSuchPort(entry) => {
            let ports = entry.ports.iter().map(|port| port.port).collect();
            (Lookup::NoSuchPort { service: entry.service.clone(), ports }, None)
        }
        Outbound::Hidden(entry) => (Lookup::Hidden { service: entry.service.clone() }, None),
        Outbound::Unknown => (Lookup::Unknown, None),
    }
}

fn of_gateway<'t>(tables: &'t Tables, port: Port, host: &str) -> (Lookup, Option<Found<'t>>) {
    let Some(gateway) = tables.gateway() else { return (Lookup::Unknown, None) };
    match gateway.select_host(port, None, host) {
        HostSelection::Routes { listener, host: _, routes } => {
            let name = listener.listener.name.to_string();
            let lookup = Lookup::Listener { name, origin: listener.listener.origin.clone() };
            let redirect = listener.listener.https_redirect.then_some(&listener.listener.origin);
            (lookup, Some(Found { http: routes, tcp: &listener.tcp, opaque: false, redirect }))
        }
        HostSelection::NotFound(_) => (Lookup::NoListener { status: 404 }, None),
        HostSelection::Misdirected(_) => (Lookup::NoListener { status: 421 }, None),
    }
}

fn http_routing<'t>(
    call: &Call<'t>,
    table: &'t HttpTable,
    request: &RequestFacts<'_>,
) -> (Routing, Option<Way<'t>>) {
    let mut trace = Recorder::default();
    let outcome = route(table, call.tables.me(), request, call.port, &mut trace);
    let answer = |status, text: &str| ActionFinding::Answer { status, text: text.to_owned() };
    let (rule, action) = match &outcome {
        RouteOutcome::Forward(forward) => {
            (Some(forward.rule), ActionFinding::Forward(branches(call.tables, &forward.distribution)))
        }
        RouteOutcome::Redirect { rule, status, location } => (Some(*rule), answer(*status, location)),
        RouteOutcome::Respond { rule, status, body } => (Some(*rule), answer(*status, body)),
        RouteOutcome::Fail { rule, status, reason } => (Some(*rule), answer(*status, reason)),
        RouteOutcome::NoRoute => (None, answer(404, "no route matches")),
    };
    let (path, way) = match &outcome {
        RouteOutcome::Forward(forward) => {
            let way = Way { distribution: forward.distribution, rule: Some(&**forward.rule) };
            (forward.path(request.path), Some(way))
        }
        RouteOutcome::Redirect { .. }
        | RouteOutcome::Respond { .. }
        | RouteOutcome::Fail { .. }
        | RouteOutcome::NoRoute => (None, None),
    };
    let rule: Option<&HttpRule> = rule.map(|rule| &**rule);
    let routing = Routing {
        tried: trace.steps,
        rule: rule.map(|rule| rule.origin.clone()),
        action,
        path,
        timeout_ms: rule.and_then(|rule| rule.timeout).map(|timeout| timeout.0),
        retries: rule.map_or_else(|| "none".to_owned(), |rule| retries(&rule.retry)),
        fault: rule.and_then(|rule| rule.fault.as_ref()).map(fault),
        mirrors: rule.map(|rule| rule.mirrors.iter().map(mirror).collect()).unwrap_or_default(),
    };
    (routing, way)
}

fn tcp_routing<'t>(call: &Call<'t>, table: &'t TcpTable) -> (Routing, Option<Way<'t>>) {
    let destination = match call.to {
        CallTarget::Address(address) => Some(address),
        CallTarget::Host(_) | CallTarget::GatewayHost(_) => None,
    };
    let mut trace = Recorder::default();
    let outcome = route_tcp(table, call.tables.me(), &TcpFacts { sni: call.sni, destination }, &mut trace);
    let closed = |text: &str| ActionFinding::Answer { status: 0, text: text.to_owned() };
    let (rule, action, distribution) = match outcome {
        TcpOutcome::Forward { matched, distribution } => {
            let forward = ActionFinding::Forward(branches(call.tables, &distribution));
            (Some(matched.clone()), forward, Some(distribution))
        }
        TcpOutcome::NoBackend(origin) => {
            (Some(origin.clone()), closed("closed: no backend has any weight"), None)
        }
        TcpOutcome::NoRoute => (None, closed("closed: no route matches"), None),
    };
    let routing = Routing {
        tried: trace.steps,
        rule,
        action,
        path: None,
        timeout_ms: None,
        retries: "only of connecting".to_owned(),
        fault: None,
        mirrors: Vec::new(),
    };
    (routing, distribution.map(|distribution| Way { distribution, rule: None }))
}

fn branches(tables: &Tables, distribution: &Distribution<'_>) -> Vec<Branch> {
    let branch = |(backend, share): (&leno_model::Backend, f64)| Branch {
        percent: share * 100.0,
        to: target(&backend.target),
        origin: backend.origin.clone(),
        state: match tables.backend(&backend.target) {
            BackendState::Ready(ready) => branch_state(tables, &ready),
            BackendState::Unresolved { status, reason } => {
                BranchState::Unresolved { status, reason: reason.to_string() }
            }
        },
    };
    distribution.shares().map(branch).collect()
}

fn branch_state(tables: &Tables, ready: &ReadyBackend<'_>) -> BranchState {
    let candidates = ready.candidates();
    let name = |at: u32| {
        let place = |endpoint: &Endpoint| {
            let how = without_mtls(&ready.policy.tls, &endpoint.tunnel);
            match endpoint.locality == Locality::default() {
                true => format!("{}{how}", endpoint.workload),
                false => format!("{} in {}{how}", endpoint.workload, endpoint.locality),
            }
        };
        ready.endpoints.endpoints.get(at as usize).map(place)
    };
    let tier = |tier: locality::Tier| TierFinding {
        groups: tier
            .groups
            .iter()
            .map(|group| (group.weight, group.endpoints.iter().filter_map(|at| name(*at)).collect()))
            .collect(),
    };
    let tiers = locality::tiers(ready.endpoints, &candidates, tables.me(), &ready.policy.locality);
    BranchState::Ready {
        destination: ready.subset.map_or(&ready.destination.origin, |subset| &subset.origin).clone(),
        endpoints: ready.endpoints.endpoints.len(),
        ready: candidates.len(),
        tiers: tiers.into_iter().map(tier).collect(),
        balancer: match &ready.policy.balancer {
            LoadBalancer::LeastRequest => "least request".to_owned(),
            LoadBalancer::RoundRobin => "round robin".to_owned(),
            LoadBalancer::Random => "random".to_owned(),
            LoadBalancer::Passthrough => "passthrough".to_owned(),
            LoadBalancer::Hash { key, minimum_ring_size } => {
                format!("ring hash of {key:?} ({minimum_ring_size})")
            }
        },
        tls: match &ready.policy.tls {
            ClientTls::Auto => "mTLS where the endpoint has a proxy".to_owned(),
            ClientTls::Disable => "plaintext".to_owned(),
            ClientTls::Mesh => "mTLS".to_owned(),
            ClientTls::Simple { sni, .. } => format!("TLS to {sni}"),
        },
        limits: Limits::of(&ready.policy.limits),
        stale: ready.endpoints.stale.iter().map(ToString::to_string).collect(),
    }
}

/// What comes of it that an endpoint takes no mTLS of the mesh: it has no proxy, or one that is told not to.
fn without_mtls(tls: &ClientTls, tunnel: &Tunnel) -> &'static str {
    match (tls, tunnel) {
        (ClientTls::Auto, Tunnel::Plain) => " (by plaintext)",
        (ClientTls::Mesh, Tunnel::Plain | Tunnel::Dns { .. }) => " (fails: it has no proxy for mTLS)",
        (ClientTls::Auto, Tunnel::Mesh | Tunnel::Gateway { .. } | Tunnel::Dns { .. })
        | (ClientTls::Mesh, Tunnel::Mesh | Tunnel::Gateway { .. })
        | (ClientTls::Disable | ClientTls::Simple { .. }, _) => "",
    }
}

fn target(target: &BackendTarget) -> String {
    match target {
        BackendTarget::Service { service, port, subset: None } => format!("{service} port {port}"),
        BackendTarget::Service { service, port, subset: Some(subset) } => {
            format!("{service} port {port} subset {subset}")
        }
        BackendTarget::Unresolved { reason, .. } => format!("nothing ({reason})"),
    }
}

fn retries(policy: &RetryPolicy) -> String {
    if policy.attempts == 0 {
        return "none".to_owned();
    }
    let whose = if policy.explicit { "as written" } else { "what is safe to repeat" };
    let limit = policy.per_try_timeout.map(|limit| format!(", {limit} each")).unwrap_or_default();
    format!("up to {}{limit}, {whose}: {:?}", policy.attempts, policy.on)
}

fn fault(fault: &leno_model::Fault) -> String {
    let delay = fault.delay.map(|(share, time)| format!("{share} delayed {time}"));
    let abort = fault.abort.map(|(share, with)| format!("{share} aborted with {with:?}"));
    [delay, abort].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn mirror(mirror: &Mirror) -> MirrorFinding {
    MirrorFinding {
        percent: f64::from(mirror.share.parts_per_million()) / 10_000.0,
        to: target(&mirror.target),
        origin: mirror.origin.clone(),
    }
}

#[cfg(test)]
mod tests;
