//! Requests at a fixed rate, whatever the answers do (open loop), with latencies and failures.
//!
//! ```text
//!   plan      what to send, how often, through what          ticker    a timer finer than the runtime's millisecond
//!   record    latencies, counts, the first failures          run       the schedule and the requests
//! ```
//!
//! Invariants: a latency runs from the moment the request was scheduled for, so that a stall of the system under load is
//! in the numbers of every request that it delayed (no coordinated omission); requests under way are bounded, and an
//! arrival beyond the bound is a failure (`overrun`), never a wait.
//! Must not know: meshes.

mod plan;
mod record;
mod run;
#[cfg(test)]
mod tests;
mod ticker;

pub use plan::{Arrivals, Label, LoadProtocol, MakeRequest, Plan, Target};
pub use record::{Failure, PhaseStats};
pub use run::{Handle, Load, LoadError};
