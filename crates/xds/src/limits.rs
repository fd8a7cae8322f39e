//! Bounds on what one stream may hold or send, the same on both sides.
//!
//! Invariant: what one side may send with the defaults, the other side takes with the defaults.

/// Bounds on what one stream may hold or send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A message is closed when it has grown beyond this many bytes.
    pub chunk_bytes: usize,
    /// A message larger than this is refused, and a resource that cannot fit in one is withheld.
    pub message_bytes: usize,
    /// A generation with more bytes of payload than this is refused as a whole.
    pub generation_bytes: usize,
    /// A client holds no more resources than this.
    pub resources: usize,
    /// A client subscribes to no more scopes than this.
    pub scopes: usize,
    /// The longest name of a resource or scope, in bytes.
    pub name_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chunk_bytes: 2 << 20,
            message_bytes: 8 << 20,
            generation_bytes: 256 << 20,
            resources: 1 << 20,
            scopes: 16 << 10,
            name_bytes: 1 << 10,
        }
    }
}

/// Room that a message needs beside one resource's payload and names.
const ENVELOPE_BYTES: usize = 64 << 10;

impl Limits {
    /// The largest payload that is sent at all.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.message_bytes.saturating_sub(ENVELOPE_BYTES).min(self.generation_bytes)
    }
}
