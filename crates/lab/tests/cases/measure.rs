//! Shares by counting: how far a count may be off, and what several calls say together.
//!
//! Invariant: all and nothing are exact; in between a share is wrong only beyond 4.5 standard deviations (and two more
//! requests, because few requests are no bell curve), which chance gives once in 100,000 measurements.

use std::collections::BTreeMap;

use leno_analyze::cases::{Expect, Observed, ObservedBackend, ObservedFault};
use leno_model::Millis;
use serde_json::Value;

use crate::{
    app::Seen,
    call::{Answer, Ended},
};

/// Calls of a case whose shares are neither all nor nothing.
pub(crate) const MANY: usize = 400;
/// Calls of one where they are, and of one that is about no shares.
const SOME: usize = 20;
const FEW: usize = 3;

fn is_partial(share: f64) -> bool {
    (0.001..=99.999).contains(&share)
}

/// How many calls a case needs.
pub(crate) fn calls(expect: &Expect) -> usize {
    let shares = expect.backends.iter().chain(&expect.mirror).flat_map(|shares| shares.values().copied());
    let fault = expect.fault.clone().unwrap_or_default();
    let faults = [fault.delay.map(|(share, _)| share), fault.abort.as_ref().map(|(share, _)| *share)];
    if shares.chain(faults.into_iter().flatten()).any(is_partial) {
        MANY
    } else if expect.backends.is_some() || expect.mirror.is_some() {
        SOME
    } else {
        FEW
    }
}

/// By how many percentage points a share may be off.
pub(crate) fn tolerance(share: f64, calls: usize) -> f64 {
    if !is_partial(share) {
        return 0.0;
    }
    let (part, calls) = (share / 100.0, calls as f64);
    (4.5 * (part * (1.0 - part) / calls).sqrt() + 2.0 / calls) * 100.0
}

/// The share that is expected when the count is as near as chance allows, else the one that was counted.
pub(crate) fn share(count: usize, calls: usize, expected: f64) -> f64 {
    let counted = count as f64 * 100.0 / calls as f64;
    if (counted - expected).abs() <= tolerance(expected, calls) + 0.001 { expected } else { counted }
}

/// Where calls went, in the terms of the prediction. `None`: no call reached an application.
pub(crate) fn backends(
    predicted: &Observed,
    expect: &Expect,
    ended: &[Ended],
) -> Option<Vec<ObservedBackend>> {
    let names = expect.backends.as_ref()?;
    if names.is_empty() {
        // Whatever an application got is one too many.
        let reached = ended.iter().filter_map(Ended::seen).map(|seen| (seen.owner.clone(), 1)).collect();
        return Some(ObservedBackend::from_counts(&[], &reached));
    }
    let by_status = names.keys().any(|name| name.parse::<u16>().is_ok());
    if !by_status && !ended.iter().any(|ended| ended.seen().is_some()) {
        return None;
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for ended in ended {
        let name = match (ended.seen(), ended.answer()) {
            (Some(seen), _) => seen.owner.clone(),
            (None, Some(answer)) => answer.status.to_string(),
            (None, None) => "no answer".to_owned(),
        };
        *counts.entry(name).or_default() += 1;
    }
    Some(ObservedBackend::from_counts(predicted.backends.as_deref().unwrap_or_default(), &counts))
}

/// Copies by the workloads that got them: all arrivals without those that answered.
pub(crate) fn copies(arrived: &[Seen], ended: &[Ended]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for seen in arrived {
        *counts.entry(seen.owner.clone()).or_default() += 1;
    }
    for seen in ended.iter().filter_map(Ended::seen) {
        if let Some(count) = counts.get_mut(&seen.owner) {
            *count -= 1;
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// Mirrors and their shares of all calls.
pub(crate) fn mirrors(
    predicted: &Observed,
    copies: &BTreeMap<String, usize>,
    calls: usize,
) -> Vec<ObservedBackend> {
    let mut left = copies.clone();
    let mut found = Vec::new();
    for mirror in predicted.mirrors.iter().flatten() {
        let count: usize = mirror.owners.keys().filter_map(|owner| left.remove(owner)).sum();
        found.push(ObservedBackend { share: share(count, calls, mirror.share), ..mirror.clone() });
    }
    let unexpected = left.into_iter().map(|(owner, count)| ObservedBackend {
        share: count as f64 * 100.0 / calls as f64,
        names: vec![owner],
        owners: BTreeMap::new(),
    });
    found.extend(unexpected);
    found
}

/// Whether the copies are as many as they should be by now.
pub(crate) fn mirrors_are_there(expect: &Expect, seen: &[ObservedBackend]) -> bool {
    let shares = expect.mirror.iter().flatten();
    shares.clone().all(|(name, share)| {
        let counted: f64 = seen.iter().filter(|it| it.names.contains(name)).map(|it| it.share).sum();
        (counted - share).abs() < 0.001
    })
}

/// The faults that calls show. Delays are those that the caller's log marks, and each must have been felt: how long other
/// calls took is the machine's matter.
pub(crate) fn fault(expect: &Expect, ended: &[Ended], lines: &[Value]) -> Option<ObservedFault> {
    let wanted = expect.fault.as_ref()?;
    let answers: Vec<&Answer> = ended.iter().filter_map(Ended::answer).collect();
    if answers.len() < ended.len() || lines.len() < ended.len() {
        return None;
    }
    let aborted: Vec<&&Answer> = answers.iter().filter(|answer| is_abort(answer)).collect();
    let with = aborted.first().map(|answer| match answer.headers.get("grpc-status") {
        Some(status) => format!("grpc {status}"),
        None => answer.status.to_string(),
    });
    let expected_abort = wanted.abort.as_ref().map_or(0.0, |(share, _)| *share);
    let abort = share(aborted.len(), ended.len(), expected_abort);
    let (expected_delay, time) = wanted.delay.unwrap_or((0.0, Millis(0)));
    let is_delayed =
        |line: &&Value| line["response_flags"].as_str().is_some_and(|flags| flags.contains("DI"));
    let marked = lines.iter().filter(is_delayed).count();
    let felt = answers.iter().filter(|answer| answer.elapsed >= time.duration()).count();
    let delay = share(marked.min(felt), lines.len(), expected_delay);
    Some(ObservedFault {
        delay: (delay > 0.0).then_some((delay, time)),
        abort: (abort > 0.0).then(|| (abort, with.unwrap_or_else(|| "nothing".to_owned()))),
    })
}

fn is_abort(answer: &Answer) -> bool {
    let said = answer.headers.get("grpc-message").unwrap_or(&answer.body);
    answer.seen.is_none() && said.contains("fault filter abort")
}

#[test]
fn a_count_that_chance_allows_is_the_share_and_all_or_nothing_is_exact() {
    assert!((share(310, 400, 75.0) - 75.0).abs() < 0.001);
    assert!((share(200, 400, 75.0) - 50.0).abs() < 0.001);
    assert!((share(399, 400, 100.0) - 99.75).abs() < 0.001);
    assert!((share(1, 400, 0.0) - 0.25).abs() < 0.001);
}
