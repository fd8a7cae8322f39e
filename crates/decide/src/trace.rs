//! What a decision looked at on its way, for those who ask "why".
//!
//! Invariant: a decision is the same whichever trace it is given. [`NoTrace`] costs nothing: its methods are empty and the
//! closures that would describe a step are never called.

use leno_model::Origin;
use serde::Serialize;

/// Receives the steps of a decision.
pub trait Trace {
    /// Whether steps are kept; a decision may skip work that only serves the trace.
    const ENABLED: bool;

    /// One thing was looked at, and it held or did not.
    fn step(&mut self, held: bool, origin: &Origin, what: impl FnOnce() -> String);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    const ENABLED: bool = false;

    #[inline(always)]
    fn step(&mut self, _held: bool, _origin: &Origin, _what: impl FnOnce() -> String) {}
}

/// Keeps every step.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// The steps, in the order of evaluation.
    pub steps: Vec<Step>,
}

/// One thing that a decision looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// Whether it held.
    pub held: bool,
    /// What it was, and why it did not hold.
    pub what: String,
    /// Where it is in the user's YAML.
    pub origin: Origin,
}

impl Trace for Recorder {
    const ENABLED: bool = true;

    fn step(&mut self, held: bool, origin: &Origin, what: impl FnOnce() -> String) {
        self.steps.push(Step { held, what: what(), origin: origin.clone() });
    }
}
