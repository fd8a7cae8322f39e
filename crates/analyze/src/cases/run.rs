//! Runs a case offline: compiles its world and decides its request, as the proxies on its way would.
//!
//! Invariant: the request passes the same pure functions as in a proxy; nothing here has an opinion on what objects mean.
//! What an application would answer is taken to be 200.

mod describe;
mod inbound;
mod outbound;
mod world;

pub use describe::{listener as describe_listener, policy as describe_policy, workload as describe_workload};
use leno_compile::MeshSettings;
use leno_decide::{Recorder, Step};

use super::{
    check::check,
    format::{Caller, Case, CaseFile, Request, Target},
    observed::{Observed, Outcome},
    report::{Report, Summary},
};
use world::CaseWorld;

/// What running a case gives.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What was seen.
    pub observed: Observed,
    /// The steps of the decisions.
    pub trace: Vec<Step>,
}

/// Runs a case without judging it.
#[must_use]
pub fn run(case: &Case, settings: &MeshSettings) -> Ran {
    let world = CaseWorld::of(case, settings);
    let mut trace = Recorder::default();
    let mut observed = Observed { complete: true, ..Observed::default() };
    if let Some(request) = &case.request {
        let decided = match inbound::Arriving::of(request) {
            Ok(arriving) => decide(&world, case, (request, arriving), &mut observed, &mut trace),
            Err(problem) => {
                observed.outcome = Some(Outcome::Answered);
                observed.status = Some(400);
                observed.reason = Some(problem.to_string());
                Ok(())
            }
        };
        if let Err(problem) = decided {
            observed.outcome = Some(Outcome::Unavailable);
            observed.reason = Some(problem);
        }
        finish(&mut observed, matches!(request.target, Target::Http { .. }));
    }
    if let Caller::Workload(from) = &case.from {
        observed.workload = world.workload(from).ok().map(|found| describe::workload(found));
    }
    observed.diagnostics = Some(world.diagnostics(case));
    observed.statuses = Some(world.compiled.statuses);
    Ran { observed, trace: trace.steps }
}

fn decide(
    world: &CaseWorld,
    case: &Case,
    (request, arriving): (&Request, Option<inbound::Arriving>),
    observed: &mut Observed,
    trace: &mut Recorder,
) -> Result<(), String> {
    let arriving = (request, arriving);
    match (&request.to, &request.gateway, &case.from) {
        (Some(to), _, _) => inbound::straight(world, arriving, to, observed, trace),
        (None, Some(gateway), _) => outbound::through_gateway(world, arriving, gateway, observed, trace),
        (None, None, Caller::Workload(from)) => {
            outbound::from_workload(world, arriving, from, observed, trace)
        }
        (None, None, Caller::Outside) => inbound::outside(world, arriving, observed, trace),
    }
}

/// The status that follows from the outcome where no rule says one.
fn finish(observed: &mut Observed, is_http: bool) {
    let of_outcome = match observed.outcome {
        Some(Outcome::Forwarded | Outcome::Passthrough) => Some(200),
        Some(Outcome::NoRoute) => Some(404),
        Some(Outcome::Denied) => Some(403),
        Some(Outcome::Unavailable) => Some(503),
        Some(Outcome::Answered | Outcome::PlaintextRefused | Outcome::Mixed) | None => None,
    };
    if is_http && observed.status.is_none() {
        observed.status = of_outcome;
    }
    // What did not happen is seen not to have happened.
    observed.location.get_or_insert_default();
    observed.backends.get_or_insert_default();
    observed.response_headers.get_or_insert_default();
    if observed.outcome == Some(Outcome::Forwarded) {
        observed.mirrors.get_or_insert_default();
        observed.fault.get_or_insert_default();
    }
}

/// Runs and judges a case.
pub(super) fn judge(case: &Case, settings: &MeshSettings) -> Report {
    let Ran { observed, trace } = run(case, settings);
    let mismatches = check(case, &observed);
    let passed = mismatches.is_empty();
    let trace = if passed { Vec::new() } else { trace.iter().map(describe::step).collect() };
    Report {
        name: case.name.clone(),
        place: case.place.clone(),
        spec: case.spec.clone(),
        source: case.source.clone(),
        passed,
        mismatches,
        trace,
    }
}

/// Runs all cases of a file.
#[must_use]
pub fn run_file(file: &CaseFile, settings: &MeshSettings) -> Summary {
    Summary::of(file.cases.iter().map(|case| judge(case, settings)).collect())
}
