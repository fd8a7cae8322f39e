//! Istio's labels in their exact order (CONTRACTS section 1): 25 for HTTP, 24 for gRPC messages, 23 for TCP.
//!
//! Invariant: what is not known is `unknown`, except `grpc_response_status`, which is empty where there is none.

use super::text::label;
use crate::{
    flags::ResponseFlags,
    record::{ConnectionSecurity, PeerMeta, Reporter, RequestProtocol, ServiceMeta},
};

/// What a series of traffic is about. The label set it makes is its rendering.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) source: &'a PeerMeta,
    pub(crate) destination: &'a PeerMeta,
    pub(crate) service: &'a ServiceMeta,
    pub(crate) flags: ResponseFlags,
    pub(crate) security: ConnectionSecurity,
    pub(crate) traffic: Traffic,
}

/// The part of a subject that differs between HTTP and TCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Traffic {
    Http { protocol: RequestProtocol, code: u16, grpc_status: Option<u16> },
    Tcp,
}

/// A rendered label set: the labels up to the last, and the last (which gRPC message metrics leave out).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LabelSet {
    /// All labels.
    pub(crate) all: Box<str>,
    /// The length of `all` without `connection_security_policy`.
    pub(crate) without_security: usize,
}

impl Subject<'_> {
    pub(crate) fn labels(&self) -> LabelSet {
        let (protocol, code, grpc) = match self.traffic {
            Traffic::Http { protocol, code, grpc_status } => {
                (protocol.name(), Some(code.to_string()), grpc_status.map(|status| status.to_string()))
            }
            Traffic::Tcp => ("tcp", None, None),
        };
        let values = Values {
            reporter: self.reporter.name(),
            source: PeerLabels::of(self.source),
            destination: PeerLabels::of(self.destination),
            service: [&self.service.host, &self.service.name, &self.service.namespace].map(|v| known(v)),
            protocol,
            code: code.as_deref(),
            grpc: grpc.as_deref().unwrap_or(""),
            flags: &self.flags.to_string(),
            security: self.security.label(self.reporter),
        };
        values.render()
    }

    /// The series that takes what exceeds the budget: reporter kept, all else `overflow`.
    pub(crate) fn overflow_labels(&self) -> LabelSet {
        let peer = PeerLabels::all("overflow");
        let values = Values {
            reporter: self.reporter.name(),
            source: peer,
            destination: peer,
            service: ["overflow"; 3],
            protocol: "overflow",
            code: (self.traffic != Traffic::Tcp).then_some("overflow"),
            grpc: "overflow",
            flags: "overflow",
            security: "overflow",
        };
        values.render()
    }
}

#[derive(Clone, Copy)]
struct PeerLabels<'a> {
    workload: &'a str,
    canonical_service: &'a str,
    canonical_revision: &'a str,
    namespace: &'a str,
    principal: &'a str,
    app: &'a str,
    version: &'a str,
    cluster: &'a str,
}

impl<'a> PeerLabels<'a> {
    fn of(peer: &'a PeerMeta) -> Self {
        let revision = match (&*peer.canonical_revision, &*peer.canonical_service) {
            ("", "") => "unknown",
            ("", _) => "latest",
            (revision, _) => revision,
        };
        Self {
            workload: known(&peer.workload),
            canonical_service: known(&peer.canonical_service),
            canonical_revision: revision,
            namespace: known(&peer.namespace),
            principal: peer.principal.as_ref().map_or("unknown", |id| id.as_str()),
            app: known(&peer.app),
            version: known(&peer.version),
            cluster: known(&peer.cluster),
        }
    }

    fn all(text: &'a str) -> Self {
        Self {
            workload: text,
            canonical_service: text,
            canonical_revision: text,
            namespace: text,
            principal: text,
            app: text,
            version: text,
            cluster: text,
        }
    }
}

struct Values<'a> {
    reporter: &'a str,
    source: PeerLabels<'a>,
    destination: PeerLabels<'a>,
    service: [&'a str; 3],
    protocol: &'a str,
    /// `None` for TCP, which has neither a response code nor a gRPC status.
    code: Option<&'a str>,
    grpc: &'a str,
    flags: &'a str,
    security: &'a str,
}

impl Values<'_> {
    fn render(&self) -> LabelSet {
        let (source, destination) = (&self.source, &self.destination);
        let [host, name, namespace] = self.service;
        let mut all = String::with_capacity(1024);
        for (label_name, value) in [
            ("reporter", self.reporter),
            ("source_workload", source.workload),
            ("source_canonical_service", source.canonical_service),
            ("source_canonical_revision", source.canonical_revision),
            ("source_workload_namespace", source.namespace),
            ("source_principal", source.principal),
            ("source_app", source.app),
            ("source_version", source.version),
            ("source_cluster", source.cluster),
            ("destination_workload", destination.workload),
            ("destination_workload_namespace", destination.namespace),
            ("destination_principal", destination.principal),
            ("destination_app", destination.app),
            ("destination_version", destination.version),
            ("destination_service", host),
            ("destination_canonical_service", destination.canonical_service),
            ("destination_canonical_revision", destination.canonical_revision),
            ("destination_service_name", name),
            ("destination_service_namespace", namespace),
            ("destination_cluster", destination.cluster),
            ("request_protocol", self.protocol),
        ] {
            label(&mut all, label_name, value);
        }
        if let Some(code) = self.code {
            label(&mut all, "response_code", code);
            label(&mut all, "grpc_response_status", self.grpc);
        }
        label(&mut all, "response_flags", self.flags);
        let without_security = all.len();
        label(&mut all, "connection_security_policy", self.security);
        LabelSet { all: all.into(), without_security }
    }
}

fn known(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}
