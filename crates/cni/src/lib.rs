//! Capture by a CNI plugin, chained after the cluster's own (docs/adr/0019-cni.md).
//!
//! ```text
//!   runtime ──stdin, CNI_*──> call ──> decide ──┬─> pass: prevResult as it was; nobody is asked
//!                                               └─> ask: the node's agent, which writes the rules
//!   agent ──> conflist: the plugin's entry, put in, kept in, taken out
//! ```
//!
//! Invariants: only a pod that says itself that it is to be captured ever depends on the agent; nothing that the cluster's own plugins
//! have configured is changed. Must not know: files, sockets, namespaces; the program and the agent do.

#![forbid(unsafe_code)]

mod call;
pub mod conflist;
mod decide;
mod entry;
mod question;

pub use call::{Call, Command, Failure, RETRY_LATER, read, versions};
pub use decide::{Decision, decide};
pub use entry::Entry;
pub use question::{Answer, LONGEST_QUESTION, Question, Wanted};

/// Annotation of a pod: the arguments of `leno-proxy capture`, as a JSON list. The injector writes it where a CNI plugin captures.
pub const CAPTURE_ANNOTATION: &str = "leno.dev/capture";
/// Annotation of a pod: revision of the control plane that has injected it.
pub const REVISION_ANNOTATION: &str = "leno.dev/rev";
/// By this capability containerd and CRI-O tell a plugin the pod's annotations.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
