//! Types of the Kubernetes, Gateway API and Istio objects that Leno reads, parsed strictly, with source spans.
//!
//! ```text
//! text --yaml--> Node (value + line, column) --decode--> Object<S> in AnyObject, and Diagnostics
//!                                               |
//!                                            schema: all fields of all CRDs ("unknown" or "not supported"?)
//! ```
//!
//! Invariants: no field is silently dropped; what cannot be honoured is a value (`Rule::Refused`, `AnyObject::Refused`);
//! every value that later steps may complain about is `Spanned`. No I/O, no clock, no logging, no order from hashing.
//! Must not know: the mesh's own model, nor what any field means for traffic.

pub mod codes;
mod decode;
pub mod diagnostic;
pub mod gateway;
pub mod istio;
pub mod k8s;
pub mod kind;
pub mod metadata;
pub mod object;
pub mod schema;
pub mod yaml;

pub use decode::closest;
pub use diagnostic::{Diagnostic, ObjectRef, Refused, Rule, Severity, Source, Spanned};
pub use kind::Kind;
pub use metadata::Metadata;
pub use object::{AnyObject, Object, Parsed, RefusedObject, parse, parse_json, parse_node};
