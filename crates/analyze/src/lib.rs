//! Rules that look at a world and its compilation and report problems; runs behaviour cases.
//!
//! ```text
//! (World, Compiled) --analyze--> Diagnostics (LN2xxx)
//! case file --cases::read--> cases --cases::run_file--> Summary
//! ```
//!
//! Invariant: pure (no I/O, clock, randomness, logging), and it has no opinion of its own on what objects mean: it looks at
//! what `compile` made of them and asks `decide`.
//! Must not know: proxies, files, clusters.
//!
//! | module | holds |
//! | --- | --- |
//! | [`codes`] | the diagnostics of this crate |
//! | `rules` | the rules behind them |
//! | [`cases`] | the format of behaviour cases, and their runner |
//! | [`embedded`] | what Kubernetes' controllers would add to manifests |

#![forbid(unsafe_code)]

pub mod cases;
pub mod codes;
pub mod embedded;
mod rules;

pub use rules::analyze;
