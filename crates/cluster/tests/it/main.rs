//! The command line's client against an API server that a test makes up.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod checking;
mod connecting;
mod fake;
mod installing;
mod uninstalling;
mod upgrading;
