//! Watches a directory of manifests and emits what changed. A Kubernetes source will stand beside it, with the same output.
//!
//! Invariant: "deleted" and "cannot see" are told apart: what cannot be read or parsed keeps its last good form, and says so.
//! Must not know: what any object means.

#![forbid(unsafe_code)]

mod files;
mod folder;
mod overlay;
mod watch;

pub use files::{FileSource, Reading, SourceError};
pub use overlay::{EmbeddedSource, Overlay};
pub use watch::watch;
