//! Tests of the crate from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod bookinfo;
mod codegen;
mod lasting;
mod mesh;
mod online_boutique;
mod yard;
