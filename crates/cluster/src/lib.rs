//! A Kubernetes cluster as the person sees it who installs Leno into it.
//!
//! ```text
//! kubeconfig, context ──connect──> Client ──┬─ install: apply each object, wait for the control plane
//!                                           ├─ upgrade: what an installation would change, by dry run
//!                                           ├─ uninstall: delete each, but nothing that others still need
//!                                           └─ check: what it has, lacks and does wrong
//! ```
//!
//! Invariants: every request and wait is bounded; an error names the object and what the API server said; what was done before
//! an error is told. Must not know: what the objects are for (`leno_install` does), and how results are printed.

#![forbid(unsafe_code)]

pub mod check;
mod connect;
mod install;
mod object;
mod problem;
mod uninstall;
pub mod upgrade;
mod wait;

pub use connect::{Access, ConnectProblem, connect};
pub use install::{Installation, Step, install};
pub use kube::Client;
pub use problem::Problem;
pub use uninstall::uninstall;
