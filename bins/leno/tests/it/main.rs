//! The command line as users have it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod analyze;
mod change;
mod clusters;
mod commands;
mod explain;
mod input;
mod killed;
mod rig;
mod run;
mod traces;
mod up;
