//! The kinds we recognise: group, name, versions, whether they have a namespace, whether we act on them.
//!
//! Invariant: one table, `KINDS`; a kind that is not in it is "unused" and only counted.

use crate::decode::{closest, distance};

/// What we do with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Decoded and acted upon.
    Used,
    /// Recognised and refused as a whole, with this reason.
    Refused(&'static str),
}

/// A kind we recognise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant is the kind of that name")]
pub enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    Secret,
    Service,
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    EndpointSlice,
    GatewayClass,
    Gateway,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TlsRoute,
    UdpRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    ListenerSet,
    VirtualService,
    DestinationRule,
    IstioGateway,
    ServiceEntry,
    Sidecar,
    WorkloadEntry,
    WorkloadGroup,
    EnvoyFilter,
    ProxyConfig,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    WasmPlugin,
    TrafficExtension,
    Telemetry,
}

/// One row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Name as written in `kind:`.
    pub name: &'static str,
    /// Versions we read.
    pub versions: &'static [&'static str],
    /// Whether objects of the kind are in a namespace.
    pub namespaced: bool,
    /// Whether we act on it.
    pub support: Support,
}

/// Edits by which a group may differ from the one that is meant; other projects' groups are further away.
const GROUP_EDITS: usize = 2;

const V1: &[&str] = &["v1"];
const ISTIO: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];
const GATEWAY_API: &[&str] = &["v1", "v1beta1", "v1alpha2", "v1alpha3"];
const GATEWAY: &str = "gateway.networking.k8s.io";
const NETWORKING: &str = "networking.istio.io";

const fn row(
    kind: Kind,
    group: &'static str,
    name: &'static str,
    versions: &'static [&'static str],
    support: Support,
) -> KindInfo {
    let namespaced = !matches!(kind, Kind::Namespace | Kind::Node | Kind::GatewayClass);
    KindInfo { kind, group, name, versions, namespaced, support }
}

/// All kinds we recognise.
pub const KINDS: &[KindInfo] = {
    use Support::{Refused, Used};
    &[
        row(Kind::Namespace, "", "Namespace", V1, Used),
        row(Kind::Node, "", "Node", V1, Used),
        row(Kind::ServiceAccount, "", "ServiceAccount", V1, Used),
        row(Kind::Secret, "", "Secret", V1, Used),
        row(Kind::Service, "", "Service", V1, Used),
        row(Kind::Pod, "", "Pod", V1, Used),
        row(Kind::Deployment, "apps", "Deployment", V1, Used),
        row(Kind::StatefulSet, "apps", "StatefulSet", V1, Used),
        row(Kind::DaemonSet, "apps", "DaemonSet", V1, Used),
        row(Kind::ReplicaSet, "apps", "ReplicaSet", V1, Used),
        row(Kind::EndpointSlice, "discovery.k8s.io", "EndpointSlice", V1, Used),
        row(Kind::GatewayClass, GATEWAY, "GatewayClass", GATEWAY_API, Used),
        row(Kind::Gateway, GATEWAY, "Gateway", GATEWAY_API, Used),
        row(Kind::HttpRoute, GATEWAY, "HTTPRoute", GATEWAY_API, Used),
        row(Kind::GrpcRoute, GATEWAY, "GRPCRoute", GATEWAY_API, Used),
        row(Kind::TcpRoute, GATEWAY, "TCPRoute", GATEWAY_API, Used),
        row(Kind::TlsRoute, GATEWAY, "TLSRoute", GATEWAY_API, Used),
        row(Kind::UdpRoute, GATEWAY, "UDPRoute", GATEWAY_API, Refused("UDP is not carried by the mesh")),
        row(Kind::ReferenceGrant, GATEWAY, "ReferenceGrant", GATEWAY_API, Used),
        row(Kind::BackendTlsPolicy, GATEWAY, "BackendTLSPolicy", GATEWAY_API, Used),
        row(Kind::ListenerSet, GATEWAY, "ListenerSet", GATEWAY_API, Used),
        row(Kind::VirtualService, NETWORKING, "VirtualService", ISTIO, Used),
        row(Kind::DestinationRule, NETWORKING, "DestinationRule", ISTIO, Used),
        row(Kind::IstioGateway, NETWORKING, "Gateway", ISTIO, Used),
        row(Kind::ServiceEntry, NETWORKING, "ServiceEntry", ISTIO, Used),
        row(Kind::Sidecar, NETWORKING, "Sidecar", ISTIO, Refused("what a proxy loads is found on demand")),
        row(
            Kind::WorkloadEntry,
            NETWORKING,
            "WorkloadEntry",
            ISTIO,
            Refused("workloads outside Kubernetes come later"),
        ),
        row(
            Kind::WorkloadGroup,
            NETWORKING,
            "WorkloadGroup",
            ISTIO,
            Refused("workloads outside Kubernetes come later"),
        ),
        row(Kind::EnvoyFilter, NETWORKING, "EnvoyFilter", ISTIO, Refused("there is no Envoy to patch")),
        row(
            Kind::ProxyConfig,
            NETWORKING,
            "ProxyConfig",
            &["v1beta1"],
            Refused("proxies are not configured per workload"),
        ),
        row(Kind::AuthorizationPolicy, "security.istio.io", "AuthorizationPolicy", SECURITY, Used),
        row(Kind::PeerAuthentication, "security.istio.io", "PeerAuthentication", SECURITY, Used),
        row(
            Kind::RequestAuthentication,
            "security.istio.io",
            "RequestAuthentication",
            SECURITY,
            Refused("tokens of end users are not verified by this release"),
        ),
        row(
            Kind::WasmPlugin,
            "extensions.istio.io",
            "WasmPlugin",
            &["v1alpha1"],
            Refused("there are no WebAssembly extensions"),
        ),
        row(
            Kind::TrafficExtension,
            "extensions.istio.io",
            "TrafficExtension",
            &["v1alpha1"],
            Refused("there are no extensions of the proxy"),
        ),
        row(
            Kind::Telemetry,
            "telemetry.istio.io",
            "Telemetry",
            &["v1", "v1alpha1"],
            Refused("telemetry is not configured per workload"),
        ),
    ]
};

impl Kind {
    /// The kind of a group and name.
    #[must_use]
    pub fn find(group: &str, name: &str) -> Option<&'static KindInfo> {
        KINDS.iter().find(|row| row.group == group && row.name == name)
    }

    /// The kind that a group and name which are none of ours were meant to be, when they are near enough.
    #[must_use]
    pub fn meant(group: &str, name: &str) -> Option<&'static KindInfo> {
        let near = |row: &&KindInfo| row.name == name && distance(row.group, group) <= GROUP_EDITS;
        let own = KINDS.iter().filter(|row| row.group == group);
        let kind = closest(name, own.clone().map(|row| row.name));
        kind.and_then(|kind| Self::find(group, kind)).or_else(|| KINDS.iter().find(near))
    }

    /// Its row of the table.
    #[must_use]
    pub fn info(self) -> &'static KindInfo {
        KINDS.iter().find(|row| row.kind == self).expect("every kind has a row, held by a test")
    }

    /// Its fields, for the kinds of the Gateway API and Istio; empty for Kubernetes' own.
    #[must_use]
    pub fn fields(self) -> &'static [crate::schema::FieldPath] {
        let info = self.info();
        crate::schema::fields(info.group, info.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_schema_is_recognised_and_every_kind_has_a_row() {
        for (group, name) in crate::schema::kinds() {
            assert!(Kind::find(group, name).is_some(), "{group} {name}");
        }
        for (index, row) in KINDS.iter().enumerate() {
            assert_eq!(row.kind as usize, index, "rows are in the order of the enum: {:?}", row.kind);
        }
        assert_eq!(Kind::Telemetry as usize + 1, KINDS.len());
    }
}
