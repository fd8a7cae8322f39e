//! The mesh's vocabulary: what the compiler produces, the wire carries and the deciders read.
//!
//! Everything here is plain immutable data with an [`Origin`] in the user's YAML where a person may ask "why".
//! Invariant: nothing in this crate depends on a proxy, a clock, a socket or a Kubernetes type.
//!
//! | module | holds |
//! | --- | --- |
//! | [`names`] | namespaces, hosts, service, workload and cluster names |
//! | [`identity`] | trust domains and SPIFFE ids |
//! | [`units`] | durations, weights, percentages, generations |
//! | [`origin`] | where in the user's YAML a thing comes from |
//! | [`protocol`] | application protocols and mTLS modes |
//! | [`matching`] | string, path, header and query matchers |
//! | [`index`] | the compact index every proxy always has |
//! | [`route`] | routing tables: matches, actions, retries, faults |
//! | [`destination`] | how consumers call a service: balancing, limits, ejection, subsets |
//! | [`endpoint`] | the addresses behind a service |
//! | [`policy`] | authorization policies |
//! | [`workload`] | a workload's own inbound configuration |
//! | [`gateway`] | listeners of a gateway and their certificates |
//! | [`control_address`] | where a control plane is |
//! | [`resource`] | the union of the above: what discovery names, versions and sends |

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod control_address;
pub mod destination;
pub mod endpoint;
pub mod gateway;
pub mod identity;
pub mod index;
pub mod matching;
pub mod names;
pub mod origin;
pub mod policy;
pub mod protocol;
pub mod resource;
pub mod route;
pub mod units;
pub mod workload;

pub use control_address::{ControlAddress, NotAnAddress};
pub use destination::{
    ClientTls, ConnectionLimits, Destination, HashKey, LoadBalancer, LocalityPolicy, LocalityRule,
    OutlierDetection, Subset, TrafficPolicy,
};
pub use endpoint::{Endpoint, EndpointSet, EndpointState, Locality, Tunnel};
pub use gateway::{Gateway, GatewayProtocol, GatewayTls, HostPattern, HostRoutes, Listener, TlsSecret};
pub use identity::{SpiffeId, TrustDomain};
pub use index::{Exposure, IndexEntry, IndexPort};
pub use matching::{HeaderMatch, HeaderTest, PathMatch, QueryMatch, StringMatch};
pub use names::{ClusterName, Host, Namespace, NetworkName, ServiceId, WorkloadId};
pub use origin::Origin;
pub use policy::{
    AuthorizationPolicy, Condition, ConditionKey, ConditionValue, IpBlock, Operation, PolicyAction,
    PolicyRule, Source,
};
pub use protocol::{MtlsMode, Protocol};
pub use resource::{Resource, ResourceKey, ResourceKind};
pub use route::{
    AbortWith, Action, Backend, BackendTarget, Fault, HeaderEdits, HttpEntry, HttpMatch, HttpRoutes,
    HttpRule, Mirror, PathRewrite, PortRoutes, Redirect, RedirectPort, RetryCondition, RetryPolicy, Rewrite,
    RouteTable, TcpEntry, TcpMatch,
};
pub use units::{Generation, Millis, Percent, Port, Weight};
pub use workload::{InboundPort, InboundService, Workload};
