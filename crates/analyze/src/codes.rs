//! Every diagnostic code of this crate with its one-line meaning, for the documentation.
//!
//! Invariant: a code never changes its meaning; a code that is gone is not used again.

/// Code and meaning, ascending.
pub const ALL: &[(&str, &str)] = &[];
