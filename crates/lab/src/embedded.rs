//! What Kubernetes' own controllers do, for a mesh without Kubernetes: pods from templates, addresses, cluster DNS.
//!
//! ```text
//! manifests --plan--> PodPlan per replica --runner starts it--> Pod object (ready, terminating) --> control plane
//!           \--> Services with cluster IPs, and a DNS table for the stand-in applications
//! ```
//!
//! Invariant: a name keeps its address as long as the mesh runs, whatever else changes.
//! Must not know: proxies, control planes, sockets.

mod addresses;
mod dns;
mod pods;

pub use addresses::{Addresses, Block, BlockError};
pub use dns::Dns;
pub use pods::{PlannedPort, PodPlan, PodState, plan, pod_object};
