//! What a workload accepts.

use std::{collections::HashMap, sync::Arc};

use leno_model::{InboundPort, InboundService, MtlsMode, Origin, Port, Protocol, Workload};

use crate::{policy::PolicySet, trace::Trace};

/// A workload's inbound tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The policies that select it, flattened.
    pub policies: PolicySet,
    ports: HashMap<Port, usize>,
}

/// What is accepted on a port.
#[derive(Clone, Copy, Debug)]
pub struct InboundRule<'t> {
    /// What is spoken there.
    pub protocol: Protocol,
    /// What is accepted there.
    pub mtls: MtlsMode,
    /// The PeerAuthentication (or default) that says so.
    pub mtls_origin: &'t Origin,
    /// The services that lead here; empty for a port that nothing declares.
    pub services: &'t [InboundService],
}

impl Inbound {
    pub(crate) fn new(workload: Arc<Workload>, policies: PolicySet) -> Self {
        let ports = workload.ports.iter().enumerate().map(|(at, port)| (port.port, at)).collect();
        Self { workload, policies, ports }
    }

    /// What is accepted on a port; for one that nothing declares, the workload's own mode and any protocol.
    pub fn port(&self, port: Port) -> InboundRule<'_> {
        match self.ports.get(&port).and_then(|at| self.workload.ports.get(*at)) {
            Some(InboundPort { port: _, protocol, mtls, mtls_origin, services }) => {
                InboundRule { protocol: *protocol, mtls: *mtls, mtls_origin, services }
            }
            None => InboundRule {
                protocol: Protocol::Detect,
                mtls: self.workload.mtls,
                mtls_origin: &self.workload.mtls_origin,
                services: &[],
            },
        }
    }

    /// The service that a peer calls by a workload port and the service port and host it says (SNI); the first that leads
    /// there when it says none.
    pub fn service(&self, port: Port, host: Option<&str>) -> Option<&InboundService> {
        let services = self.port(port).services;
        let named =
            |service: &&InboundService| host.is_some_and(|host| service.service.host.as_str() == host);
        services.iter().find(named).or_else(|| services.first())
    }
}

/// Whether a connection is admitted by its transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is.
    Admit,
    /// Plaintext where only mTLS is accepted.
    PlaintextRefused,
}

/// Decides whether a connection is admitted by its transport. mTLS is admitted in every mode: where it is disabled peers are
/// not asked for it, but one that still uses it, because the change has not reached it yet, does no harm.
pub fn admit_connection(rule: &InboundRule<'_>, is_mtls: bool, trace: &mut impl Trace) -> Admission {
    let refused = rule.mtls == MtlsMode::Strict && !is_mtls;
    trace.step(!refused, rule.mtls_origin, || {
        let transport = if is_mtls { "mTLS" } else { "plaintext" };
        format!("mTLS mode {}: {transport} is {}", rule.mtls, if refused { "refused" } else { "accepted" })
    });
    if refused { Admission::PlaintextRefused } else { Admission::Admit }
}
