//! Behaviour cases: objects, a request and what must happen to it. One format for our own conformance and `leno test`.
//!
//! ```text
//! FILE --read--> Case --run--> Observed --check--> Mismatches --> Report
//!                     (a real proxy's runner gives its own Observed to the same check)
//! ```
//!
//! Invariants: a key that the format does not have is an error with its line; a case that expects nothing is an error; what
//! a runner cannot observe is not judged, and what it can is never skipped.
//! Must not know: sockets, files (a loader is an argument), clocks.

mod check;
mod format;
mod observed;
mod read;
mod report;
mod run;

pub use check::{Mismatch, check};
pub use format::{
    Caller, Case, CaseFile, DenialExpectation, Expect, FaultExpectation, ForwardedExpectation, HeaderValues,
    Limit, Place, Request, RetryExpectation, Target, WorkloadName,
};
pub use observed::{Observed, ObservedBackend, ObservedDenial, ObservedFault, ObservedRetries, Outcome};
pub use read::{CaseError, read, read_sound};
pub use report::{Report, Summary};
pub use run::{Ran, describe_listener, describe_policy, describe_workload, run, run_file};

#[cfg(test)]
mod tests;
