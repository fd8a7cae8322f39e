//! Rules over a world and its compilation.

use leno_apis::Diagnostic;
use leno_compile::{Compiled, World};

/// Looks for problems.
#[must_use]
pub fn analyze(_world: &World, _compiled: &Compiled) -> Vec<Diagnostic> {
    Vec::new()
}
