//! The client's side of a case: what the caller's proxy, or a gateway, does with its request.

use std::{collections::BTreeMap, net::IpAddr};

use leno_decide::{
    BackendState, Distribution, Forward, HostSelection, HttpTable, Outbound, ReadyBackend, Recorder,
    RouteOutcome, Tables, TcpFacts, TcpOutcome, TcpTable, WhoAmI, host_of, route, route_tcp,
};
use leno_model::{
    Backend, BackendTarget, ClientTls, Endpoint, GatewayProtocol, Protocol, SpiffeId, Tunnel, WorkloadId,
};

use super::{
    describe,
    inbound::{Answer, Arriving, SOMEWHERE, Visitor, ask, conclude, conclude_all},
    world::CaseWorld,
};
use crate::cases::{
    format::{Request, Target, WorkloadName},
    observed::{Observed, ObservedBackend, Outcome},
};

/// The proxy that decides, and whom it stands for.
struct Client<'c> {
    world: &'c CaseWorld,
    tables: &'c Tables,
    identity: &'c SpiffeId,
    address: IpAddr,
    sni: Option<&'c str>,
}

/// A request by the proxy beside a workload.
pub(super) fn from_workload(
    world: &CaseWorld,
    (request, arriving): (&Request, Option<Arriving>),
    from: &WorkloadName,
    observed: &mut Observed,
    trace: &mut Recorder,
) -> Result<(), String> {
    let workload = world.workload(from)?;
    let tables = world.tables(WhoAmI::of_workload(workload));
    let service = match tables.outbound_by_host(request.target.host(), request.target.port()) {
        Outbound::Known(known) => known.entry.service.clone(),
        Outbound::NoSuchPort(entry) => {
            return Err(format!("{} has no port {}", entry.service, request.target.port()));
        }
        Outbound::Hidden(_) | Outbound::Unknown => {
            observed.outcome = Some(Outcome::Passthrough);
            return Ok(());
        }
    };
    let tables = world.load(&tables, &service);
    let Outbound::Known(known) = tables.outbound_by_host(request.target.host(), request.target.port()) else {
        return Err(format!("{service} vanished while it was loaded"));
    };
    let loaded = known.loaded.ok_or_else(|| format!("{service} cannot be loaded"))?;
    observed.protocol = Some(known.port.protocol.to_string());
    let client = Client {
        world,
        tables: &tables,
        identity: &workload.identity,
        address: request.source_ip.or(workload.address).unwrap_or(SOMEWHERE),
        sni: request.sni.as_deref(),
    };
    let opaque = matches!(known.port.protocol, Protocol::Tcp | Protocol::Tls);
    match arriving {
        Some(arriving) if !opaque => {
            client.http(&loaded.routes.http, arriving, request.target.port(), observed, trace)
        }
        _ => client.tcp(&loaded.routes.tcp, known.entry.addresses.first().copied(), observed, trace),
    }
    Ok(())
}

/// A request to a gateway's listener.
pub(super) fn through_gateway(
    world: &CaseWorld,
    (request, arriving): (&Request, Option<Arriving>),
    name: &WorkloadName,
    observed: &mut Observed,
    trace: &mut Recorder,
) -> Result<(), String> {
    let id = WorkloadId::new(&name.namespace, &name.name);
    let known = world.compiled.gateways().iter().map(|gateway| &gateway.id);
    let id = known.clone().find(|known| **known == id).or_else(|| {
        // An Istio Gateway is served by a workload; the Gateway's own name means that one.
        let by_origin = world.compiled.gateways().iter().find(|gateway| {
            *gateway.origin.namespace == *name.namespace && *gateway.origin.name == *name.name
        });
        by_origin.map(|gateway| &gateway.id)
    });
    let id = id.ok_or_else(|| format!("there is no gateway {name}"))?;
    let tables = world.tables(WhoAmI::new(id.clone()));
    let gateway = tables.gateway().ok_or_else(|| format!("the gateway {name} has no listeners"))?;
    let client = Client {
        world,
        tables: &tables,
        identity: &gateway.gateway().identity,
        address: request.source_ip.unwrap_or(SOMEWHERE),
        sni: request.sni.as_deref(),
    };
    let port = request.target.port();
    if gateway.listeners(port).is_empty() {
        return Err(format!("the gateway {name} has no listener on port {port}"));
    }
    let visitor =
        Visitor { peer: None, source_ip: client.address, sni: client.sni, request: arriving.as_ref() };
    let own = ask(world, id, port, &visitor, trace);
    let Some(arriving) = arriving else {
        let listener = gateway.by_sni(port, request.sni.as_deref());
        let listener = listener.ok_or_else(|| format!("no listener on port {port} fits"))?;
        observed.listener = Some(describe::listener(&listener.listener));
        if !matches!(own, Answer::Admitted) {
            conclude(observed, own);
            return Ok(());
        }
        client.tcp(&listener.tcp, None, observed, trace);
        return Ok(());
    };
    let accepted = match (&request.target, request.sni.as_deref()) {
        (Target::Http { scheme, .. }, sni) if scheme == "https" => {
            let sni = sni.unwrap_or(request.target.host());
            let listener = gateway.by_sni(port, Some(sni));
            Some(listener.ok_or_else(|| format!("no listener on port {port} serves {sni}"))?)
        }
        _ => None,
    };
    observed.listener = accepted.map(|listener| describe::listener(&listener.listener));
    if let Some(listener) = accepted
        && matches!(&listener.listener.protocol, GatewayProtocol::Https(tls) if tls.certificates.is_empty())
    {
        return Err("the listener has no certificate".to_owned());
    }
    // As in the proxy: first what the gateway's own policies say, then routes.
    if !matches!(own, Answer::Admitted) {
        conclude(observed, own);
        return Ok(());
    }
    let host = host_of(&arriving.authority).to_ascii_lowercase();
    match gateway.select_host(port, accepted.map(|listener| &listener.listener), &host) {
        HostSelection::Routes { listener, routes, .. } if listener.listener.https_redirect => {
            let _ = routes;
            answered(observed, 301, None);
            observed.location = Some(Some(format!("https://{host}{}", arriving.path)));
        }
        HostSelection::Routes { listener, routes, .. } => {
            observed.listener.get_or_insert_with(|| describe::listener(&listener.listener));
            client.http(routes, arriving, port, observed, trace);
        }
        HostSelection::NotFound(_) => observed.outcome = Some(Outcome::NoRoute),
        HostSelection::Misdirected(_) => answered(observed, 421, None),
    }
    Ok(())
}

fn answered(observed: &mut Observed, status: u16, reason: Option<&str>) {
    observed.outcome = Some(Outcome::Answered);
    observed.status = Some(status);
    observed.reason = reason.map(str::to_owned);
}

impl Client<'_> {
    fn http(
        &self,
        table: &HttpTable,
        arriving: Arriving,
        port: u16,
        observed: &mut Observed,
        trace: &mut Recorder,
    ) {
        let outcome = arriving.with_facts(|facts| route(table, self.tables.me(), facts, port, trace));
        let rule = match outcome {
            RouteOutcome::NoRoute => {
                observed.outcome = Some(Outcome::NoRoute);
                return;
            }
            RouteOutcome::Redirect { rule, status, location } => {
                answered(observed, status, None);
                observed.location = Some(Some(location));
                rule
            }
            RouteOutcome::Respond { rule, status, body } => {
                answered(observed, status, None);
                observed.body = Some(body.to_string());
                rule
            }
            RouteOutcome::Fail { rule, status, reason } => {
                answered(observed, status, Some(reason));
                rule
            }
            RouteOutcome::Forward(forward) => {
                self.forward(&forward, arriving, observed, trace);
                forward.rule
            }
        };
        observed.timeout = Some(rule.timeout);
        observed.retries = Some(describe::retries(&rule.retry));
        observed.fault = Some(describe::fault(rule.fault.as_ref()));
        let mirrors =
            rule.mirrors.iter().map(|mirror| self.backend(&mirror.target, describe::percent(mirror.share)).0);
        observed.mirrors = Some(mirrors.collect());
        let headers = observed.response_headers.get_or_insert_default();
        let before = std::mem::take(headers);
        describe::edit(headers, &rule.response_headers);
        headers.extend(before);
    }

    fn forward(
        &self,
        forward: &Forward<'_>,
        arriving: Arriving,
        observed: &mut Observed,
        trace: &mut Recorder,
    ) {
        let (path, query) = match arriving.path.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (arriving.path.clone(), None),
        };
        let mut sent = arriving;
        if let Some(path) = forward.path(&path) {
            sent.path = match query {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
        }
        if let Some(authority) = &forward.rule.rewrite.authority {
            sent.authority = authority.to_string();
        }
        describe::edit(&mut sent.headers, &forward.rule.request_headers);
        let first = forward.distribution.backends.iter().find(|backend| backend.weight.0 > 0);
        if let Some(Backend { request_headers, response_headers, .. }) = first {
            describe::edit(&mut sent.headers, request_headers);
            describe::edit(observed.response_headers.get_or_insert_default(), response_headers);
        }
        // Istio sets `host` and `authority` by header edits too.
        for name in ["host", ":authority"] {
            if let Some(host) = sent.headers.remove(name) {
                sent.authority = host;
            }
        }
        observed.attempt_timeout = Some(first.and_then(|backend| forward.attempt_timeout(backend)));
        observed.forwarded_path = Some(sent.path.clone());
        observed.forwarded_host = Some(sent.authority.clone());
        observed.forwarded_headers = Some(sent.headers.clone());
        self.deliver(&forward.distribution, Some(&sent), observed, trace);
    }

    fn tcp(&self, table: &TcpTable, address: Option<IpAddr>, observed: &mut Observed, trace: &mut Recorder) {
        let facts = TcpFacts { sni: self.sni, destination: address };
        match route_tcp(table, self.tables.me(), &facts, trace) {
            TcpOutcome::Forward { distribution, .. } => self.deliver(&distribution, None, observed, trace),
            TcpOutcome::NoBackend(_) => observed.outcome = Some(Outcome::Unavailable),
            TcpOutcome::NoRoute => observed.outcome = Some(Outcome::NoRoute),
        }
    }

    /// Asks every server that may get it, and says what all of them together are.
    fn deliver(
        &self,
        distribution: &Distribution<'_>,
        request: Option<&Arriving>,
        observed: &mut Observed,
        trace: &mut Recorder,
    ) {
        let mut backends = Vec::new();
        let mut destinations = Vec::new();
        let mut failed = None;
        let mut answers = Vec::new();
        for (backend, share) in distribution.shares().filter(|(_, share)| *share > 0.0) {
            let (seen, state) = self.backend(&backend.target, share * 100.0);
            match state {
                BackendState::Unresolved { status, reason } => {
                    failed.get_or_insert((status, reason));
                }
                BackendState::Ready(ready) => {
                    destinations.push(describe::policy(ready.policy));
                    answers.extend(self.servers(&ready).into_iter().map(|endpoint| (ready, endpoint)));
                }
            }
            backends.push(seen);
        }
        observed.backends = Some(backends);
        observed.destinations = Some(destinations);
        let mut said = Vec::new();
        for (ready, endpoint) in answers {
            let is_mtls = is_mtls(&ready, endpoint);
            observed.mtls = Some(observed.mtls.unwrap_or(true) && is_mtls);
            let visitor = Visitor {
                peer: is_mtls.then_some(self.identity),
                source_ip: self.address,
                sni: self.sni,
                request,
            };
            let Some(port) = endpoint.ports.get(&ready.port) else { continue };
            said.push(ask(self.world, &endpoint.workload, *port, &visitor, trace));
        }
        if !conclude_all(observed, said.into_iter()) {
            match failed {
                Some((status, reason)) => answered(observed, status, Some(&reason)),
                None => observed.outcome = Some(Outcome::Unavailable),
            }
        }
        if observed.outcome != Some(Outcome::Forwarded) {
            observed.forwarded_path = None;
        }
    }

    fn servers<'r>(&self, ready: &ReadyBackend<'r>) -> Vec<&'r Endpoint> {
        let set = ready.endpoints;
        ready.candidates().into_iter().filter_map(|at| set.endpoints.get(at as usize)).collect()
    }

    fn backend<'t>(&'t self, target: &'t BackendTarget, share: f64) -> (ObservedBackend, BackendState<'t>) {
        let state = self.tables.backend(target);
        let (names, owners) = match &state {
            BackendState::Unresolved { status, .. } => (vec![status.to_string()], BTreeMap::new()),
            BackendState::Ready(ready) => {
                let subset = ready.subset.map(|subset| &*subset.name);
                let servers = self.servers(ready);
                let mut owners: BTreeMap<String, f64> = BTreeMap::new();
                for endpoint in &servers {
                    *owners.entry(endpoint.owner.to_string()).or_default() += share / servers.len() as f64;
                }
                (describe::names(&ready.destination.service, ready.port, subset), owners)
            }
        };
        (ObservedBackend { share, names, owners }, state)
    }
}

/// Whether the hop to an endpoint is mesh mTLS.
fn is_mtls(ready: &ReadyBackend<'_>, endpoint: &Endpoint) -> bool {
    let is_peer = matches!(endpoint.tunnel, Tunnel::Mesh | Tunnel::Gateway { .. });
    match ready.policy.tls {
        ClientTls::Auto | ClientTls::Mesh => is_peer,
        ClientTls::Disable | ClientTls::Simple { .. } => false,
    }
}
