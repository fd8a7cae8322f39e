//! What Kubernetes' own controllers do, for a mesh without Kubernetes: pods from templates, addresses.
//!
//! ```text
//! manifests --plan--> PodPlan per replica --mesh starts it--> Pod as JSON (ready, terminating) --> overlay of the control plane
//!           \--> PlannedService: cluster IPs --> overlay, and the names that stand-in applications resolve
//! ```
//!
//! Invariant: a name keeps its address as long as the mesh runs, whatever else changes.
//! Must not know: proxies, control planes, sockets (but for the one that marks a block of addresses as taken).

mod addresses;
mod pods;
mod services;

pub use addresses::{Addresses, Block, BlockError, MAX_CLUSTERS};
pub use pods::{Planned, PlannedPort, PodPlan, PodState, plan};
pub use services::{PlannedService, find_service};
