//! What a case expects, thing by thing, and how each was checked.
//!
//! Invariant: total over [`Expect`], so that nothing that is expected is left out of the count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use leno_analyze::cases::Expect;

/// How something that is expected was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    /// It showed in what callers and applications sent and got.
    Wire,
    /// The control plane says it, or a proxy was given it.
    Published,
    /// Only `compile` and `decide` were asked (by the test of `leno-analyze`).
    Decide,
}

/// All that is expected.
pub(crate) fn expected(expect: &Expect) -> Vec<&'static str> {
    let Expect {
        backends,
        status,
        location,
        body,
        reason,
        forwarded,
        response_headers,
        timeout,
        attempt_timeout,
        retries,
        fault,
        mirror,
        denied,
        allowed,
        mtls,
        no_route,
        plaintext_refused,
        passthrough,
        protocol,
        destination,
        workload,
        listener,
        diagnostics,
        no_diagnostics,
        conditions,
    } = expect;
    let forwarded = forwarded.clone().unwrap_or_default();
    let denied_by = denied.clone().unwrap_or_default();
    let (named, retries) = (retries.is_some(), retries.clone().unwrap_or_default());
    let kinds = [
        ("backends", backends.is_some()),
        ("status", status.is_some()),
        ("location", location.is_some()),
        ("body", body.is_some()),
        ("reason", reason.is_some()),
        ("forwarded.path", forwarded.path.is_some()),
        ("forwarded.host", forwarded.host.is_some()),
        ("forwarded.headers", !forwarded.headers.is_empty()),
        ("response_headers", !response_headers.is_empty()),
        ("timeout", timeout.is_some()),
        ("attempt_timeout", attempt_timeout.is_some()),
        ("retries.attempts", named && retries.attempts.is_some()),
        ("retries.per_try_timeout", retries.per_try_timeout.is_some()),
        ("retries.on", retries.on.is_some()),
        ("retries.backoff", retries.backoff.is_some()),
        ("fault", fault.is_some()),
        ("mirror", mirror.is_some()),
        ("denied", denied.is_some()),
        ("denied.policy", denied_by.policy.is_some()),
        ("denied.rule", denied_by.rule.is_some()),
        ("allowed", allowed.is_some()),
        ("mtls", mtls.is_some()),
        ("no_route", no_route.is_some()),
        ("plaintext_refused", plaintext_refused.is_some()),
        ("passthrough", passthrough.is_some()),
        ("protocol", protocol.is_some()),
        ("destination", destination.is_some()),
        ("workload", workload.is_some()),
        ("listener", listener.is_some()),
        ("diagnostics", !diagnostics.is_empty()),
        ("no_diagnostics", !no_diagnostics.is_empty()),
        ("conditions", !conditions.is_empty()),
    ];
    kinds.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind).collect()
}

/// How many expectations of each kind were checked, and how.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) cases: usize,
    pub(crate) sent: usize,
    counts: BTreeMap<&'static str, BTreeMap<How, usize>>,
}

impl Tally {
    /// Counts a case.
    pub(crate) fn add(
        &mut self,
        expect: &Expect,
        sent: bool,
        wire: &BTreeSet<&'static str>,
        published: &BTreeSet<&'static str>,
    ) {
        self.cases += 1;
        self.sent += usize::from(sent);
        for kind in expected(expect) {
            let how = match (wire.contains(kind), published.contains(kind)) {
                (true, _) => How::Wire,
                (false, true) => How::Published,
                (false, false) => How::Decide,
            };
            *self.counts.entry(kind).or_default().entry(how).or_default() += 1;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} of them sent through a proxy", self.cases, self.sent)?;
        writeln!(f, "{:<26}{:>6}{:>11}{:>12}", "expectation", "wire", "published", "decide only")?;
        for (kind, counts) in &self.counts {
            let of = |how| counts.get(&how).copied().unwrap_or(0);
            let [wire, published, decide] = [How::Wire, How::Published, How::Decide].map(of);
            writeln!(f, "{kind:<26}{wire:>6}{published:>11}{decide:>12}")?;
        }
        Ok(())
    }
}
