//! Whether a proxy serves, and if not, why: one line for each thing that is missing.

use std::collections::BTreeSet;

use crate::{
    bootstrap::{Capture, INBOUND_PORT, MESH_PORT, OUTBOUND_PORT, Role},
    shared::Shared,
};

/// Whether it serves: certificate, own configuration, sockets, capture.
pub(crate) fn is_ready(shared: &Shared) -> bool {
    missing(shared).is_empty()
}

/// What is missing for it to serve.
pub(crate) fn missing(shared: &Shared) -> Vec<String> {
    let mut missing = Vec::new();
    if shared.identity.certificate().is_none() {
        let problem = shared.enrolment.borrow();
        missing.push(match &*problem {
            None => "certificate: none has come yet".to_owned(),
            Some(problem) => format!("certificate: {problem}"),
        });
    }
    match sockets(shared) {
        None => missing.push("configuration: the control plane has not sent this workload's yet".to_owned()),
        Some(needed) => {
            let listening = shared.listening.lock();
            let closed = needed.iter().filter(|port| !listening.contains_key(port));
            missing.extend(closed.map(|port| format!("sockets: port {port} is not listened on")));
        }
    }
    if let Some(problem) = shared.capture.problem() {
        missing.push(format!("capture: {problem}"));
    }
    missing
}

/// The ports that must be listened on; `None` while the configuration is not known.
fn sockets(shared: &Shared) -> Option<BTreeSet<u16>> {
    let tables = shared.tables.load();
    match (shared.bootstrap.role, shared.bootstrap.capture) {
        (Role::Sidecar, Capture::ProxyProtocol) => {
            tables.inbound().map(|_| [OUTBOUND_PORT, MESH_PORT].into())
        }
        (Role::Sidecar, Capture::Captured) => {
            tables.inbound().map(|_| [OUTBOUND_PORT, INBOUND_PORT, MESH_PORT].into())
        }
        (Role::Gateway, _) => tables.gateway().map(|gateway| gateway.ports().collect()),
    }
}
