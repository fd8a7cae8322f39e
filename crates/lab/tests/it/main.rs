//! Tests of the crate from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod codegen;
mod mesh;
mod real_manifests;
