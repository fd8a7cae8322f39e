//! What the stand-in application of a replica is: its ports, its calls, its behaviour.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    embedded::{PlannedService, PodPlan, find_service},
    standin::{
        BehaviourFile, CallProtocol, ListenSpec, StandInProtocol, StandInSpec,
        calls::{from_environment, suggested_protocol},
    },
};

/// The port on which an application really listens, where low ports may not be bound.
pub(super) fn real_port(port: u16, low_port_offset: u16) -> u16 {
    if port < 1024 { port.saturating_add(low_port_offset) } else { port }
}

/// The stand-in of a replica.
pub(super) fn spec(
    plan: &PodPlan,
    services: &[PlannedService],
    behaviours: &Arc<BehaviourFile>,
    low_port_offset: u16,
) -> StandInSpec {
    let namespace = plan.id.namespace.as_str();
    let address = if plan.has_proxy() { plan.app_address } else { plan.address };
    let listeners = plan.ports.iter().map(|port| {
        let suggested = suggested_protocol(&port.name, port.app_protocol.as_deref(), port.port);
        ListenSpec {
            address: SocketAddr::new(address, real_port(port.port, low_port_offset)),
            port_name: port.name.clone(),
            protocol: match suggested {
                CallProtocol::Tcp => StandInProtocol::Tcp,
                CallProtocol::Http | CallProtocol::Grpc => StandInProtocol::Auto,
            },
        }
    });
    let protocol_of = |host: &str, port: u16| {
        let service = find_service(services, host, namespace)?;
        let port = service.ports.iter().find(|served| served.port == port)?;
        Some(suggested_protocol(&port.name, port.app_protocol.as_deref(), port.port))
    };
    let variables = plan.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    StandInSpec {
        name: plan.id.name.to_string(),
        namespace: namespace.to_owned(),
        service_account: plan.service_account.clone(),
        app: plan.app().to_owned(),
        version: plan.version().to_owned(),
        listeners: listeners.collect(),
        calls: from_environment(variables, protocol_of),
        behaviour: behaviours.for_workload(namespace, plan.app(), plan.version()),
        notes: None,
    }
}
