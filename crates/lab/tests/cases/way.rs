//! Where a case's calls are made: through whose proxy, to which address.
//!
//! Invariant: the caller is the one that the case names, or the case is not sent and says why.

use std::net::{IpAddr, SocketAddr};

use leno_analyze::cases::{Caller, Case, Request, Target, WorkloadName};
use leno_lab::embedded::PodPlan;
use leno_model::{Namespace, SpiffeId, TrustDomain, WorkloadId};

use crate::{call::Way, rig::Rig};

/// The ways of a case's calls (several when it may reach several servers directly), and whose proxy decides.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) ways: Vec<Way>,
    /// The proxy that routes; none where the caller has none.
    pub(crate) client: Option<IpAddr>,
    /// Whether they lead to a service that the caller may see.
    pub(crate) known: bool,
}

/// How a case's request is sent; `Err` says why it is not.
pub(crate) async fn of(rig: &Rig, case: &Case, request: &Request) -> Result<Ways, String> {
    match (&request.to, &request.gateway, &case.from) {
        (Some(to), _, _) => straight(rig, request, to),
        (None, Some(gateway), _) => through_gateway(rig, request, gateway).await,
        (None, None, Caller::Workload(from)) => from_workload(rig, request, from),
        (None, None, Caller::Outside) => outside(rig, request),
    }
}

fn pod<'r>(rig: &'r Rig, name: &WorkloadName) -> Result<&'r PodPlan, String> {
    let named = |pod: &&PodPlan| {
        *pod.id.name == *name.name || pod.owner.1 == name.name || pod.label("app") == Some(&name.name)
    };
    let mut here = rig.pods().iter().filter(|pod| pod.id.namespace.as_str() == name.namespace);
    here.find(named).ok_or_else(|| format!("no workload {name} runs"))
}

fn straight(rig: &Rig, request: &Request, to: &WorkloadName) -> Result<Ways, String> {
    let pod = pod(rig, to)?;
    if request.sni.is_some() && matches!(request.target, Target::Http { .. }) {
        return Err("a plaintext request has no handshake, and so no name in it".to_owned());
    }
    let service_port = request.target.port();
    if let Some(identity) = &request.identity {
        return as_somebody(rig, pod, service_port, identity);
    }
    let mut own = rig.published.endpoints().filter(|endpoint| endpoint.workload == pod.id);
    let port = own.find_map(|endpoint| endpoint.ports.get(&service_port)).copied().unwrap_or(service_port);
    let from = request.source_ip.unwrap_or_else(|| rig.places.somewhere());
    let way = Way::Straight { to: SocketAddr::new(pod.address, port), from };
    Ok(Ways { ways: vec![way], client: None, known: true })
}

/// Who has an identity is a workload; its proxy proves it.
fn as_somebody(rig: &Rig, to: &PodPlan, port: u16, identity: &str) -> Result<Ways, String> {
    let is = |pod: &&PodPlan| {
        let namespace = pod.id.namespace.as_str();
        SpiffeId::workload(&TrustDomain::default(), namespace, &pod.service_account)
            .is_ok_and(|own| own.as_str() == identity)
    };
    let caller = rig.pods().iter().find(is).ok_or_else(|| format!("nobody here is {identity}"))?;
    let service = rig.published.services().find(|service| {
        let mut behind = rig.published.endpoints_of(service).iter();
        behind.any(|endpoint| endpoint.workload == to.id && endpoint.ports.contains_key(&port))
    });
    let address = service.and_then(|service| service.addresses.first()).ok_or("no service leads there")?;
    let way = Way::Dialled { proxy: caller.address, to: SocketAddr::new(*address, port) };
    Ok(Ways { ways: vec![way], client: Some(caller.address), known: true })
}

async fn through_gateway(rig: &Rig, request: &Request, name: &WorkloadName) -> Result<Ways, String> {
    let answer = rig.ask("/v1/gateways").await;
    let text = |gateway: &serde_json::Value, key: &str| gateway[key].as_str().unwrap_or_default().to_owned();
    let object = format!("Gateway {name} ");
    let found = answer["gateways"].as_array().and_then(|all| {
        all.iter().find(|gateway| {
            let same = text(gateway, "namespace") == name.namespace && text(gateway, "name") == name.name;
            same || format!("{} ", text(gateway, "origin")).starts_with(&object)
        })
    });
    let gateway = found.ok_or_else(|| format!("the control plane has no gateway {name}"))?;
    let id = WorkloadId::new(&text(gateway, "namespace"), &text(gateway, "name"));
    let port = request.target.port();
    let to = rig.listener(&id, port).ok_or_else(|| format!("{id} does not listen on {port}"))?;
    let from = request.source_ip.unwrap_or_else(|| rig.places.somewhere());
    Ok(Ways { ways: vec![Way::Straight { to, from }], client: rig.gateway_address(&id), known: true })
}

fn from_workload(rig: &Rig, request: &Request, from: &WorkloadName) -> Result<Ways, String> {
    let pod = pod(rig, from)?;
    let (host, port) = (request.target.host(), request.target.port());
    let proxy = pod.address;
    let namespace = Namespace::from(from.namespace.as_str());
    let service = rig.published.service(host, namespace.as_str());
    let visible = service.filter(|service| service.exposure.includes(&namespace));
    let address = service.and_then(|service| service.addresses.first()).copied();
    let way = match (visible, address) {
        // What is no service is somewhere outside, and so is one that is not shown to the caller.
        (None, address) => {
            let address = address.unwrap_or_else(|| rig.places.elsewhere());
            Way::Dialled { proxy, to: SocketAddr::new(address, port) }
        }
        (Some(service), Some(address)) if service.ports.iter().any(|it| it.port == port) => {
            Way::Dialled { proxy, to: SocketAddr::new(address, port) }
        }
        // No address leads there, so the proxy is told the name.
        (Some(_), _) if matches!(request.target, Target::Http { .. }) => Way::Named { proxy },
        (Some(_), _) => return Err(format!("{host} has no address to dial")),
    };
    Ok(Ways { ways: vec![way], client: Some(proxy), known: visible.is_some() })
}

/// Through the service's address is to any of its endpoints.
fn outside(rig: &Rig, request: &Request) -> Result<Ways, String> {
    let (host, port) = (request.target.host(), request.target.port());
    let service = rig.published.service(host, "default").ok_or_else(|| format!("{host} is no service"))?;
    let from = request.source_ip.unwrap_or_else(|| rig.places.somewhere());
    let endpoints = rig.published.endpoints_of(service).iter();
    let ways: Vec<Way> = endpoints
        .filter_map(|it| Some(Way::Straight { to: SocketAddr::new(it.address, *it.ports.get(&port)?), from }))
        .collect();
    if ways.is_empty() {
        Err(format!("{host} has no endpoint"))
    } else {
        Ok(Ways { ways, client: None, known: true })
    }
}
