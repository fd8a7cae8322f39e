//! What shows only when an application hangs or fails: limits of time, and attempts.
//!
//! Invariant: a limit is judged by what happens to a caller: nothing before it, 504 within a generous time after it.

use std::time::Duration;

use leno_analyze::cases::{Case, Expect, Mismatch, Observed, ObservedRetries, Request};
use leno_model::Millis;

use crate::{
    call::Ended,
    rig::Rig,
    runner::{Ran, call, number_of},
    way::Ways,
};

/// Limits up to this are waited for; of longer ones only that nothing comes before `BRIEFLY`.
const WAITED_FOR: Duration = Duration::from_secs(3);
const BRIEFLY: Duration = Duration::from_millis(700);
/// After a limit, an answer may take so long on a busy machine.
const LATE: Duration = Duration::from_secs(10);

/// Whether checking takes a second or more.
pub(crate) fn is_slow(expect: &Expect) -> bool {
    let delayed = expect.fault.as_ref().is_some_and(|fault| fault.delay.is_some());
    delayed || expect.timeout.is_some() || expect.attempt_timeout.is_some()
}

/// Makes the calls that a case's limits and retries need.
pub(crate) async fn all(
    rig: &Rig,
    (case, request): (&Case, &Request),
    ways: &Ways,
    predicted: &Observed,
    observed: &mut Observed,
    ran: &mut Ran,
) {
    let number = number_of(case);
    if case.expect.timeout.is_some() || case.expect.attempt_timeout.is_some() {
        let limit = shortest(predicted);
        let patience = limit.filter(|limit| *limit <= WAITED_FOR).map_or(BRIEFLY, |limit| limit + LATE);
        let ended = call(ways.ways[0], number + 1, request, Some("hang".to_owned()), patience).await;
        limits(&ended, predicted, limit, observed, ran);
    }
    if case.expect.retries.is_some()
        && let Some(retries) = &predicted.retries
    {
        let mut seen = Vec::new();
        for (index, told) in failures(&retries.on).into_iter().enumerate() {
            let number = number + 2 + index as u64;
            let ended = call(ways.ways[0], number, request, Some(told.clone()), LATE).await;
            let attempts = rig.ledger.of_case(number).len();
            seen.push((told, attempts, ended));
        }
        attempts(&seen, retries, observed, ran);
    }
}

/// The limit that a caller feels.
fn shortest(predicted: &Observed) -> Option<Duration> {
    let limits = [predicted.timeout.flatten(), predicted.attempt_timeout.flatten()];
    limits.into_iter().flatten().map(Millis::duration).min()
}

fn limits(
    ended: &Ended,
    predicted: &Observed,
    limit: Option<Duration>,
    observed: &mut Observed,
    ran: &mut Ran,
) {
    let felt = match ended {
        Ended::Answered(answer) if answer.status == 504 => Some(answer.elapsed),
        Ended::Waited(_) => None,
        other => {
            differs(ran, "timeout", &format!("{limit:?}"), other.to_string());
            return;
        }
    };
    let waited_for = limit.is_some_and(|limit| limit <= WAITED_FOR);
    let fits = match (felt, limit) {
        (Some(felt), Some(limit)) => felt >= limit && felt <= limit + LATE,
        (Some(_), None) => false,
        (None, _) => !waited_for,
    };
    if !fits {
        differs(ran, "timeout", &format!("{limit:?}"), format!("an answer after {felt:?}"));
    }
    if fits && waited_for {
        let millis = limit.map(Millis::from);
        if predicted.attempt_timeout == Some(millis) {
            observed.attempt_timeout = Some(millis);
        } else {
            observed.timeout = Some(millis);
        }
    }
    if fits && limit.is_none() {
        observed.timeout = Some(None);
    }
}

/// A failure for each condition that an application can cause, and one that none covers.
fn failures(on: &[String]) -> Vec<String> {
    let of = |condition: &String| match condition.as_str() {
        "5xx" => Some("status 500".to_owned()),
        "gateway-error" => Some("status 503".to_owned()),
        "retriable-4xx" => Some("status 409".to_owned()),
        "unavailable" => Some("grpc 14".to_owned()),
        "cancelled" => Some("grpc 1".to_owned()),
        status if status.parse::<u16>().is_ok() => Some(format!("status {status}")),
        _ => None,
    };
    let mut all: Vec<String> = on.iter().filter_map(of).collect();
    if all.is_empty() {
        all.push("status 503".to_owned());
    }
    all
}

fn attempts(
    seen: &[(String, usize, Ended)],
    predicted: &ObservedRetries,
    observed: &mut Observed,
    ran: &mut Ran,
) {
    let counted: Vec<String> = seen.iter().map(|(told, count, _)| format!("{told}: {count}")).collect();
    let first = seen.first().map_or(0, |(_, count, _)| *count);
    if seen.iter().any(|(_, count, _)| *count != first) {
        differs(ran, "retries", "as many attempts for each condition", counted.join(", "));
    }
    let attempts = u8::try_from(first.saturating_sub(1)).unwrap();
    // What does not show is as it was predicted, and is not counted as seen.
    observed.retries = Some(ObservedRetries { attempts, ..predicted.clone() });
    ran.wire.insert("retries.attempts");
}

fn differs(ran: &mut Ran, what: &str, expected: &str, actual: String) {
    ran.mismatches.push(Mismatch { what: what.to_owned(), expected: expected.to_owned(), actual });
}
