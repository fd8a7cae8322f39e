//! A control plane from outside: real sockets, real certificates, manifests in a temporary folder.

// The exemption for tests does not reach the functions beside them.
#![allow(clippy::unwrap_used)]

mod clusters;
mod discovery;
mod gateways;
mod joining;
mod rig;
mod sources;
