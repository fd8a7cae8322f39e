//! Lets requests and connections pass, or not. Only this module makes [`Admitted`], and `forward` takes nothing without it.
//!
//! Invariant: there is no way from a request to an endpoint that does not go through a function of this module.

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use leno_decide::{
    ConnectionFacts, Inbound, NoTrace, RequestFacts,
    authorize::{DenyReason, Verdict, authorize},
};
use leno_model::SpiffeId;
use leno_telemetry::flight::DenialRecord;

use crate::core::Core;

/// The proof that policy let something pass.
pub(crate) struct Admitted(());

/// Whom a connection comes from, and where it goes.
pub(crate) struct Arrival<'a> {
    /// The verified identity of a mesh peer.
    pub(crate) peer: Option<&'a SpiffeId>,
    /// The connection's other end.
    pub(crate) remote: SocketAddr,
    /// The original client, where something between is believed about it.
    pub(crate) client_ip: IpAddr,
    /// What was dialled.
    pub(crate) local: IpAddr,
    /// The workload's port.
    pub(crate) port: u16,
    /// The name in the handshake.
    pub(crate) sni: Option<&'a str>,
}

impl Arrival<'_> {
    fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            peer: self.peer,
            source_ip: self.remote.ip(),
            remote_ip: self.client_ip,
            destination_ip: self.local,
            destination_port: self.port,
            sni: self.sni,
        }
    }
}

/// A client's own proxy carries what its application asks for; the server's policies decide. The rules of the route (faults,
/// limits) were applied before.
pub(crate) fn admit_outbound() -> Admitted {
    Admitted(())
}

/// Judges a request to the workload. `Err` is the id of the denial.
pub(crate) fn admit_request(
    core: &Core,
    inbound: &Inbound,
    arrival: &Arrival<'_>,
    facts: &RequestFacts<'_>,
) -> Result<Admitted, (String, DenyReason)> {
    match authorize(&inbound.policies, &arrival.facts(), Some(facts), &mut NoTrace) {
        Verdict::Allow { .. } => Ok(Admitted(())),
        Verdict::Deny { by } => Err(denied(core, arrival, facts.method, facts.path, by)),
    }
}

/// Judges a connection whose requests are not seen.
pub(crate) fn admit_bytes(
    core: &Core,
    inbound: &Inbound,
    arrival: &Arrival<'_>,
) -> Result<Admitted, (String, DenyReason)> {
    match authorize(&inbound.policies, &arrival.facts(), None, &mut NoTrace) {
        Verdict::Allow { .. } => Ok(Admitted(())),
        Verdict::Deny { by } => Err(denied(core, arrival, "", "", by)),
    }
}

/// Judges again a connection that was admitted before; it stays as long as this holds.
pub(crate) fn still_admitted(inbound: &Inbound, arrival: &Arrival<'_>) -> bool {
    authorize(&inbound.policies, &arrival.facts(), None, &mut NoTrace).is_allow()
}

fn denied(
    core: &Core,
    arrival: &Arrival<'_>,
    method: &str,
    path: &str,
    by: DenyReason,
) -> (String, DenyReason) {
    let id = core.shared.denials.next();
    let record = DenialRecord {
        id: id.clone().into(),
        policy: by.policy().map(Into::into),
        rule: by.rule().and_then(|rule| u32::try_from(rule).ok()),
        field: by.origin().map(|origin| origin.field.clone()),
        origin: by.origin().cloned(),
        peer: arrival.peer.map_or_else(|| arrival.remote.to_string(), ToString::to_string).into(),
        method: method.into(),
        path: path.into(),
        target: format!("{} port {}", core.shared.bootstrap.workload, arrival.port).into(),
        reason: by.to_string().into(),
        ..DenialRecord::default()
    };
    core.shared.telemetry.denial(record.at(SystemTime::now()), "policy");
    (id, by)
}
