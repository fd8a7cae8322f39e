//! Whether a pod gets a proxy, why, and the pod as it is then.
//!
//! ```text
//! review ──> inject ──> decide        enrolment: labels of the namespace and the pod
//! workload ─┘   │ ────> ask           what the pod's annotations ask for: annotations, capture, proxy_config, quantity
//!               │ ────> probes        probes and lifecycle hooks that go through the proxy
//!               │ ────> sidecar       the containers and volumes that are added
//!               └─────> names         canonical name and revision
//! gateway: the pod of a gateway, which is the proxy by itself
//! patch: the difference as RFC 6902        webhook: what the webhooks must select, so that `decide` is asked
//! ```
//!
//! Invariants: the webhook (`review`) and the command line (`workload`) call the same `inject`, and a pod that was injected is
//! never injected again. What a pod asks for and does not get is refused or reported, never ignored. Nothing here panics,
//! whatever the input.
//! Must not know: API servers, sockets, clocks; how the proxy does what it is told.

mod annotations;
mod ask;
mod capture;
mod config;
mod decide;
mod duration;
mod gateway;
mod inject;
mod json;
mod names;
mod namespace;
mod patch;
mod probes;
mod proxy_config;
mod quantity;
mod review;
mod selector;
mod sidecar;
pub mod webhook;
mod workload;

pub use config::{AccessLog, Capture, Image, InjectionConfig, Policy, ProxyDefaults, Resources, Tracing};
pub use decide::{Decision, Reason, decide, enrols, is_injected};
pub use gateway::gateway_pod;
pub use inject::{Injected, Outcome, Refusal, inject};
pub use names::workload_of;
pub use namespace::Namespace;
pub use patch::diff;
pub use quantity::fault as quantity_fault;
pub use review::review;
pub use selector::{Expression, LabelSelector, Operator};
pub use workload::{WorkloadOutcome, inject_workload};

/// Container names, volumes, annotations and ports that both sides of an injection rely on.
pub mod contract {
    /// The proxy's container; kubectl, dashboards and consoles assume this name.
    pub const PROXY_CONTAINER: &str = "istio-proxy";
    /// The init container that captures traffic.
    pub const CAPTURE_CONTAINER: &str = "leno-init";
    /// User and group that the proxy runs as; its traffic is not captured.
    pub const PROXY_UID: u32 = 1337;
    /// Says what was injected, as JSON.
    pub const STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
    /// Revision of the control plane that a pod belongs to; also enrols (label of namespaces and pods).
    pub const REVISION: &str = "leno.dev/rev";
    /// Enrols: label of namespaces and pods, annotation of pods.
    pub const INJECT: &str = "leno.dev/inject";
    /// In CNI mode: the arguments of `leno-proxy capture`, as a JSON list.
    pub const CAPTURE_ANNOTATION: &str = "leno.dev/capture";
    /// Metrics, and the probes of applications.
    pub const METRICS_PORT: u16 = 15020;
    /// The proxy's own health.
    pub const HEALTH_PORT: u16 = 15021;
    /// Raw metrics.
    pub const RAW_METRICS_PORT: u16 = 15090;
    /// Ports of a pod that are the proxy's.
    pub const RESERVED_PORTS: [u16; 7] =
        [15000, 15001, 15006, 15008, METRICS_PORT, HEALTH_PORT, RAW_METRICS_PORT];
    /// Inbound ports that are never captured.
    pub const UNCAPTURED_PORTS: [u16; 4] = [15008, METRICS_PORT, HEALTH_PORT, RAW_METRICS_PORT];
    /// Namespaces that are never injected, besides the control plane's own.
    pub const SYSTEM_NAMESPACES: [&str; 4] =
        ["kube-node-lease", "kube-public", "kube-system", "local-path-storage"];
}
