//! What the plugin asks the node's agent, and the answer: one JSON text each way over a Unix socket, each ended by the end of the
//! stream. The container's network namespace comes with the first byte, as an open file: the agent needs none of the node's paths.

use serde::{Deserialize, Serialize};

/// Longest question, in bytes.
pub const LONGEST_QUESTION: usize = 64 << 10;

/// What the agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Write the rules.
    Capture,
    /// Say whether they are there.
    Verify,
    /// Nothing: the runtime does not tell annotations, so the plugin cannot know whether the pod is to be captured.
    Blind,
    /// Say whether the plugin is in place. No pod is meant.
    Ready,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is wanted.
    pub wanted: Wanted,
    /// The pod, for people.
    pub pod: String,
    /// Its capture annotation.
    pub capture: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is so.
    Done,
    /// It is not, and why.
    Failed(String),
}
