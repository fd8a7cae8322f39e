//! The control plane: reads sources, compiles, publishes, issues identities, listens to other clusters, and says how it is.
//!
//! ```text
//! input --reading--> store --compile--> publish --delta discovery, mTLS--> proxies, other control planes
//! peering --what other clusters tell--^     \--> rollout, api: what is in force and who has it
//! ```
//!
//! Invariants: one writer; a publication is immutable and compiled from one world; what cannot be read or heard keeps its last
//! good form and says so. Must not know: how requests are decided, proxies' insides.
//!
//! | module | holds |
//! | --- | --- |
//! | [`config`] | what a control plane is told at its start |
//! | `control` | its parts, started and stopped |
//! | `input` | the source of objects, followed |
//! | `patience` | what stays in force while a route waits for its subset |
//! | `store` | the one writer |
//! | `publish` | the compilation as a catalog, and what changed in it |
//! | `published` | what is in force |
//! | `authorize`, `connections`, `listen` | who may open a stream, and how connections come in |
//! | `certificate`, [`tokens`], `identity_service` | its own certificate, and everybody else's |
//! | `peering` | other clusters |
//! | `kubernetes` | what only a control plane on Kubernetes does |
//! | `replicas` | what the replicas of one control plane tell each other |
//! | `rollout`, `api` | how far the mesh is, as JSON over HTTP |

#![forbid(unsafe_code)]

mod api;
mod authorize;
mod certificate;
mod clock;
pub mod config;
mod connections;
mod control;
mod identity_service;
mod input;
mod kubernetes;
mod listen;
mod patience;
mod peering;
mod publish;
mod published;
mod replicas;
mod rollout;
mod store;
pub mod tokens;

pub use certificate::OwnCertificateError;
pub use config::ControlConfig;
pub use control::{Control, ControlError, run};
pub use kubernetes::KubernetesError;
pub use leno_ca::token_digest;
pub use store::StoreError;
