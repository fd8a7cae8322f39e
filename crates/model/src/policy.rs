//! Authorization policies: who may do what (Istio `AuthorizationPolicy`).
//!
//! Invariant: a policy that Leno cannot honour in full arrives [`AuthorizationPolicy::withheld`] and denies whatever it
//! selects. It never arrives weakened.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    matching::{PathMatch, StringMatch},
    origin::Origin,
    units::Port,
};

/// One policy. Which workloads it selects is in [`crate::Workload::policies`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct AuthorizationPolicy {
    /// `namespace/name`.
    pub id: Arc<str>,
    /// The object.
    pub origin: Origin,
    /// What a match means. DENY comes before ALLOW.
    pub action: PolicyAction,
    /// Any of them matches. No rule matches nothing: an ALLOW policy without rules denies everything.
    pub rules: Vec<PolicyRule>,
    /// Set when the policy asks for something this version cannot do: it then denies everything it selects, and says this.
    pub withheld: Option<Arc<str>>,
}

/// What a match means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PolicyAction {
    /// Refuse.
    Deny,
    /// Permit; what no ALLOW policy permits is refused once there is one.
    Allow,
}

/// A rule: `from`, `to` and `when` must each hold; within a list any one does. An empty list holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Who.
    pub from: Vec<Source>,
    /// What.
    pub to: Vec<Operation>,
    /// Under which circumstances; all of them.
    pub when: Vec<Condition>,
    /// The rule in the user's YAML.
    pub origin: Origin,
}

/// A caller: all given fields must hold; within a field any value does. Fields that are empty hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Source {
    /// SPIFFE ids without the scheme.
    pub principals: Vec<StringMatch>,
    /// None of these.
    pub not_principals: Vec<StringMatch>,
    /// Namespaces of the verified identity.
    pub namespaces: Vec<StringMatch>,
    /// None of these.
    pub not_namespaces: Vec<StringMatch>,
    /// Service accounts: `namespace/name`.
    pub service_accounts: Vec<StringMatch>,
    /// None of these.
    pub not_service_accounts: Vec<StringMatch>,
    /// Address of the peer of the connection.
    pub ip_blocks: Vec<IpBlock>,
    /// None of these.
    pub not_ip_blocks: Vec<IpBlock>,
    /// Address of the original client (X-Forwarded-For at a gateway's trust).
    pub remote_ip_blocks: Vec<IpBlock>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<IpBlock>,
    /// The source in the user's YAML.
    pub origin: Origin,
}

/// An address or a range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IpBlock(pub IpNet);

impl IpBlock {
    /// Whether `address` is in it; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// A request: all given fields must hold; within a field any value does. HTTP fields never hold for TCP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Operation {
    /// Authority, ignoring case.
    pub hosts: Vec<StringMatch>,
    /// None of these.
    pub not_hosts: Vec<StringMatch>,
    /// Ports of the workload.
    pub ports: Vec<Port>,
    /// None of these.
    pub not_ports: Vec<Port>,
    /// Methods.
    pub methods: Vec<StringMatch>,
    /// None of these.
    pub not_methods: Vec<StringMatch>,
    /// Normalised paths.
    pub paths: Vec<PathMatch>,
    /// None of these.
    pub not_paths: Vec<PathMatch>,
    /// The operation in the user's YAML.
    pub origin: Origin,
}

impl Operation {
    /// Whether any field looks at a request rather than a connection.
    pub fn needs_http(&self) -> bool {
        let lists = [&self.hosts, &self.not_hosts, &self.methods, &self.not_methods];
        lists.iter().any(|list| !list.is_empty()) || !self.paths.is_empty() || !self.not_paths.is_empty()
    }
}

/// A circumstance: one of `values` and none of `not_values`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// What is looked at.
    pub key: ConditionKey,
    /// Any of these; empty holds.
    pub values: Vec<ConditionValue>,
    /// None of these.
    pub not_values: Vec<ConditionValue>,
    /// The condition in the user's YAML.
    pub origin: Origin,
}

/// What a condition looks at (CONTRACTS section 6).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKey {
    /// `request.headers[NAME]`, lower case. Never holds for TCP.
    RequestHeader(Arc<str>),
    /// `source.ip`.
    SourceIp,
    /// `remote.ip`.
    RemoteIp,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.serviceAccount`.
    SourceServiceAccount,
    /// `source.trustDomain`.
    SourceTrustDomain,
    /// `source.principal`.
    SourcePrincipal,
    /// `destination.ip`.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// `connection.sni`.
    ConnectionSni,
}

/// A value of a condition, in the form that its key needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionValue {
    /// Text.
    Text(StringMatch),
    /// An address range.
    Ip(IpBlock),
    /// A port.
    Port(Port),
}
