//! Turns a world of API objects into model resources, statuses and diagnostics.
//!
//! ```text
//! World --index--> View (records what is read) --unit by unit--> Output { resources, statuses, diagnostics }
//!                                                   |
//!          services endpoints workloads policies routes gateway/* status     -> Compiled --closure--> what a proxy gets
//! ```
//!
//! Invariants: pure (no I/O, clock, randomness, logging); nothing takes a proxy; order never depends on a hash map;
//! conflicts go to the oldest object, then to namespace and name; a unit reads the world only through [`view::View`], so
//! that recomputing the units whose reads changed equals compiling everything.
//! Must not know: proxies, streams, how requests are decided.
//!
//! | module | holds |
//! | --- | --- |
//! | [`world`] | the objects, by key |
//! | `view` | the index over them, and reads that are recorded |
//! | [`settings`] | what a mesh and other clusters add to the objects |
//! | `services`, `endpoints`, `destination_rule`, `backend_tls` | a service: index entry, destinations, endpoints |
//! | `routes`, `virtual_service`, `http_route` | a service's routing tables |
//! | `workloads`, `policies` | what a workload accepts |
//! | `gateway` | gateways of both APIs |
//! | [`status`] | conditions of objects |
//! | [`codes`] | diagnostics of this crate |
//! | [`subsets`] | subsets that are led to and not defined |
//! | [`closure`] | which resources a consumer needs |
//! | [`incremental`] | units, their reads and their recomputation |

#![forbid(unsafe_code)]

mod backend_tls;
mod backends;
pub mod closure;
pub mod codes;
mod destination_rule;
mod endpoints;
mod exports;
mod gateway;
mod hosts;
mod http_route;
pub mod incremental;
mod object_checks;
mod output;
mod pods;
mod policies;
mod protocols;
mod routes;
mod services;
pub mod settings;
pub mod status;
pub mod subsets;
mod traffic_policy;
mod view;
mod virtual_service;
mod workloads;
pub mod world;

pub use exports::ExportedService;
pub use gateway::{EAST_WEST_PORT, GatewaySummary};
pub use incremental::{Compiled, Compiler, Delta, compile};
pub use pods::NETWORK_LABEL;
pub use settings::{MeshSettings, OutboundMode, RemoteCluster, RetryProfile};
pub use status::{Condition, ListenerStatus, ObjectStatus, ParentName, ParentStatus};
pub use world::{Change, ObjectKey, World};

#[cfg(test)]
mod tests;
