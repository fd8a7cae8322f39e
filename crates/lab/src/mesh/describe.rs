//! The entries of `mesh.json`, from what runs.

use std::net::{IpAddr, SocketAddr};

use leno_proxy::bootstrap::ADMIN_PORT;

use super::{
    gateways::GatewaySeen,
    record::{GatewayRecord, ListenerRecord, WorkloadRecord},
    stand_in::real_port,
};
use crate::embedded::{PodPlan, PodState};

/// The workloads of a cluster.
pub(super) fn workloads<'a>(pods: impl Iterator<Item = (&'a PodPlan, PodState)>) -> Vec<WorkloadRecord> {
    let record = |(plan, state): (&PodPlan, PodState)| WorkloadRecord {
        id: plan.id.clone(),
        owner: plan.owner.1.clone(),
        address: plan.address,
        app_address: plan.app_address,
        admin: plan.has_proxy().then(|| SocketAddr::new(plan.address, ADMIN_PORT)),
        ready: state.ready,
        terminating: state.terminating,
    };
    pods.map(record).collect()
}

/// A gateway at its address.
pub(super) fn gateway(
    gateway: &GatewaySeen,
    address: IpAddr,
    low_port_offset: u16,
    ready: bool,
) -> GatewayRecord {
    let listeners = gateway.listeners.iter().map(|listener| ListenerRecord {
        name: listener.name.clone(),
        port: listener.port,
        protocol: listener.protocol.clone(),
        host: listener.host.clone(),
        address: SocketAddr::new(address, real_port(listener.port, low_port_offset)),
    });
    GatewayRecord {
        id: gateway.id.clone(),
        object: gateway.object.clone(),
        admin: SocketAddr::new(address, ADMIN_PORT),
        listeners: listeners.collect(),
        ready,
    }
}
