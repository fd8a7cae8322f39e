//! Watches a directory of manifests, or a Kubernetes API server, and says what objects there are.
//!
//! Invariant: "deleted" and "cannot see" are told apart: what cannot be read or parsed keeps its last good form, and says so.
//! Must not know: what any object means.

#![forbid(unsafe_code)]

mod files;
mod folder;
pub mod kubernetes;
mod overlay;
mod watch;

pub use files::{FileSource, Reading, SourceError};
pub use overlay::{EmbeddedSource, Overlay};
pub use watch::watch;
