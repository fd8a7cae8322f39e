//! The Kubernetes objects that an installation of Leno consists of.
//!
//! ```text
//! defaults + files + --set ──merge──> Values ──objects──> [Namespace, RBAC, ConfigMap, Service, Deployment, ...]
//!                                       │                   rbac: who may do what     control: the pods and their configuration
//!                                       │                   node: the agent of each node, where it captures
//!                                       │                   clusters: ways in for other clusters
//!                                       └──injection──> InjectionConfig (also of `leno inject`)
//! ```
//!
//! Invariants: the same values give the same objects, in the order in which they are to be created; `deploy/helm/leno` gives
//! the same ones from the same values (a test runs the real Helm). No value is ignored: an unknown one is an error.
//! Must not know: API servers; applying takes the list.

mod checksum;
mod clusters;
mod control;
mod merge;
mod node;
mod objects;
mod rbac;
mod values;

pub use merge::{InvalidValues, Overrides, values};
pub use objects::{Names, objects};
pub use values::{
    Cni, Compat, Discovery, EastWest, Gateways, Images, Injection, LoadBalancer, Peer, Proxy, Tracing, Values,
};
