//! The proxy's program as a pod runs it: in network namespaces that the tests make themselves, with the kernel's own capture.
//!
//! They need root. Without it each says so on one line and tests nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod capture;
mod mesh;
mod namespace;
mod pods;
