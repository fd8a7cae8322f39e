//! Generated messages and services of `proto/leno/standin`; the generator is `tests/it/codegen.rs`.
//!
//! Must not be edited by hand: a test compares it with the proto.

use super::calls::CallReport;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
mod generated {
    include!("gen/leno.standin.v1.rs");
}

pub use generated::*;

/// The encoded descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

impl From<Call> for CallReport {
    fn from(call: Call) -> Self {
        let Call { name, target, protocol, status, milliseconds, tries, workload, version, error, calls } =
            call;
        Self {
            name,
            target,
            protocol,
            status,
            ms: milliseconds,
            tries,
            workload,
            version,
            error: (!error.is_empty()).then_some(error),
            calls: calls.into_iter().map(Self::from).collect(),
        }
    }
}

impl From<CallReport> for Call {
    fn from(report: CallReport) -> Self {
        let CallReport { name, target, protocol, status, ms, tries, workload, version, error, calls } =
            report;
        Self {
            name,
            target,
            protocol,
            status,
            milliseconds: ms,
            tries,
            workload,
            version,
            error: error.unwrap_or_default(),
            calls: calls.into_iter().map(Self::from).collect(),
        }
    }
}
