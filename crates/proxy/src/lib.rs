//! The data plane: sidecar and gateway.
//!
//! ```text
//!  listen ─► accept ─┬─► serve_http: outbound │ inbound │ edge ─► route ─► policy ─► balance ─► forward ─► record
//!                    └─► serve_tcp:  the same, without requests
//!  capture: how connections come to it in a pod; app_health: the application's probes, which come through it
//!  config: enrol (certificate), subscribe (tables), persist        admin: readiness, metrics, why
//! ```
//!
//! Invariants: one snapshot of the tables for each request; nothing reaches an endpoint or an application without an
//! [`policy::Admitted`]; what is known of a peer comes from its certificate; traffic runs on single-threaded workers and
//! nothing on its path is locked. Must not know: the control plane's types, Kubernetes, the user's YAML.

#![forbid(unsafe_code)]

mod accept;
mod admin;
pub mod app_health;
mod balance;
pub mod bootstrap;
mod capture;
mod config;
mod core;
mod denials;
mod detect;
mod edge_tls;
mod forward;
pub mod http;
mod listen;
mod policy;
mod preface;
mod probe;
mod proxy;
pub mod proxy_protocol;
mod readiness;
mod record;
mod respond;
mod serve_http;
mod serve_tcp;
mod shared;
mod standing;
mod turn;
mod worker;

pub use bootstrap::Bootstrap;
pub use config::enrol::JoinToken;
pub use denials::id_prefix;
pub use proxy::{Proxy, ProxyOptions, StartError};
pub use worker::{Worker, Workers};
