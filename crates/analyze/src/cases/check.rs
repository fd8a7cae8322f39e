//! What a case expects against what a runner saw.
//!
//! Invariant: pure, and total over [`Expect`]: every expectation is either judged or belongs to what the runner cannot see.

use std::collections::BTreeMap;

use leno_apis::{Diagnostic, Severity};
use leno_compile::{Condition, ObjectKey, ObjectStatus};
use leno_model::Millis;
use serde::Serialize;

use super::{
    format::{Case, Expect, FaultExpectation, HeaderValues, Limit, RetryExpectation},
    observed::{Observed, ObservedBackend, ObservedDenial, Outcome},
};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The key of `expect`, such as `forwarded.path`.
    pub what: String,
    /// What the case expects.
    pub expected: String,
    /// What was seen.
    pub actual: String,
}

/// Compares; an empty result is a pass.
#[must_use]
pub fn check(case: &Case, observed: &Observed) -> Vec<Mismatch> {
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
    } = &case.expect;
    let mut found = Differences { complete: observed.complete, all: Vec::new() };
    found.shares("backends", backends.as_ref(), observed.backends.as_deref(), observed.tolerance);
    found.equal("status", status.as_ref(), observed.status.as_ref());
    let seen_location =
        observed.location.as_ref().map(|location| location.clone().unwrap_or_else(|| "none".to_owned()));
    found.equal("location", location.as_ref(), seen_location.as_ref());
    found.equal("body", body.as_ref(), observed.body.as_ref());
    found.part("reason", reason.as_deref(), observed.reason.as_deref());
    if let Some(forwarded) = forwarded {
        found.equal("forwarded.path", forwarded.path.as_ref(), observed.forwarded_path.as_ref());
        found.equal("forwarded.host", forwarded.host.as_ref(), observed.forwarded_host.as_ref());
        found.headers("forwarded.headers", &forwarded.headers, observed.forwarded_headers.as_ref());
        let reached = observed.forwarded_path.is_some();
        if !reached && observed.outcome.is_some_and(|outcome| outcome != Outcome::Forwarded) {
            found.add("forwarded", "a forwarded request", outcome(observed));
        }
    }
    found.headers("response_headers", response_headers, observed.response_headers.as_ref());
    found.limit("timeout", *timeout, observed.timeout);
    found.limit("attempt_timeout", *attempt_timeout, observed.attempt_timeout);
    found.retries(retries.as_ref(), observed);
    found.fault(fault.as_ref(), observed);
    found.shares("mirror", mirror.as_ref(), observed.mirrors.as_deref(), observed.tolerance);
    if let Some(denied) = denied {
        found.outcome("denied", true, Outcome::Denied, observed);
        if let Some(denial) = &observed.denial {
            let policy = denial.policy.clone().unwrap_or_else(|| "none".to_owned());
            found.equal("denied.policy", denied.policy.as_ref(), Some(&policy));
            if denied.rule.is_some() && denied.rule != denial.rule {
                found.add("denied.rule", format!("{:?}", denied.rule), format!("{:?}", denial.rule));
            }
        }
    }
    found.allowed(*allowed, observed);
    found.equal("mtls", mtls.as_ref(), observed.mtls.as_ref());
    let outcomes = [
        ("no_route", no_route, Outcome::NoRoute),
        ("plaintext_refused", plaintext_refused, Outcome::PlaintextRefused),
        ("passthrough", passthrough, Outcome::Passthrough),
    ];
    for (what, expected, outcome) in outcomes {
        if let Some(expected) = expected {
            found.outcome(what, *expected, outcome, observed);
        }
    }
    found.equal("protocol", protocol.as_ref(), observed.protocol.as_ref());
    found.destination(destination.as_ref(), observed.destinations.as_deref());
    found.parts("workload", workload.as_ref(), observed.workload.as_ref());
    found.parts("listener", listener.as_ref(), observed.listener.as_ref());
    found.diagnostics(case, diagnostics, no_diagnostics, observed.diagnostics.as_deref());
    if let Some(statuses) = &observed.statuses {
        found.conditions(conditions, statuses);
    }
    found.all
}

fn outcome(observed: &Observed) -> String {
    let Some(outcome) = observed.outcome else { return "not seen".to_owned() };
    let mut text = match outcome {
        Outcome::Forwarded => "forwarded".to_owned(),
        Outcome::Answered => format!("answered by a proxy with {}", observed.status.unwrap_or(0)),
        Outcome::NoRoute => "no route matches".to_owned(),
        Outcome::Denied => format!("denied by {}", policy_of(observed.denial.as_ref())),
        Outcome::PlaintextRefused => "plaintext refused".to_owned(),
        Outcome::Passthrough => "passed through".to_owned(),
        Outcome::Unavailable => "no endpoint".to_owned(),
        Outcome::Mixed => "some of its servers admit it, others refuse it".to_owned(),
    };
    if let Some(reason) = &observed.reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

fn policy_of(denial: Option<&ObservedDenial>) -> String {
    denial.and_then(|denial| denial.policy.clone()).unwrap_or_else(|| "no policy that permits".to_owned())
}

struct Differences {
    /// Whether what was not seen did not happen.
    complete: bool,
    all: Vec<Mismatch>,
}

impl Differences {
    fn add(&mut self, what: &str, expected: impl Into<String>, actual: impl Into<String>) {
        self.all.push(Mismatch { what: what.to_owned(), expected: expected.into(), actual: actual.into() });
    }

    /// Something is expected of which nothing was seen.
    fn unseen(&mut self, what: &str, expected: impl Into<String>) {
        if self.complete {
            self.add(what, expected, "nothing of the kind");
        }
    }

    fn equal<T: PartialEq + ToString>(&mut self, what: &str, expected: Option<&T>, actual: Option<&T>) {
        match (expected, actual) {
            (Some(expected), Some(actual)) if expected != actual => {
                self.add(what, expected.to_string(), actual.to_string());
            }
            (Some(expected), None) => self.unseen(what, expected.to_string()),
            _ => {}
        }
    }

    fn part(&mut self, what: &str, expected: Option<&str>, actual: Option<&str>) {
        match (expected, actual) {
            (Some(expected), Some(actual)) if !actual.contains(expected) => {
                self.add(what, format!("something with \"{expected}\""), actual);
            }
            (Some(expected), None) => self.unseen(what, expected),
            _ => {}
        }
    }

    fn outcome(&mut self, what: &str, expected: bool, which: Outcome, observed: &Observed) {
        if observed.outcome.is_some_and(|seen| (seen == which) != expected) {
            self.add(what, expected.to_string(), outcome(observed));
        }
    }

    /// Admitted is what an application got; refused is what policy or mTLS demands refused.
    fn allowed(&mut self, expected: Option<bool>, observed: &Observed) {
        let (Some(expected), Some(seen)) = (expected, observed.outcome) else { return };
        let admitted = match seen {
            Outcome::Forwarded => true,
            // A host that is misspelt is no service, and must not count.
            Outcome::Passthrough
            | Outcome::Denied
            | Outcome::PlaintextRefused
            | Outcome::NoRoute
            | Outcome::Answered
            | Outcome::Unavailable
            | Outcome::Mixed => false,
        };
        if admitted != expected {
            self.add("allowed", expected.to_string(), outcome(observed));
        }
    }

    fn headers(&mut self, what: &str, expected: &HeaderValues, actual: Option<&BTreeMap<String, String>>) {
        let Some(actual) = actual else {
            expected
                .keys()
                .for_each(|name| self.unseen(&format!("{what}.{name}"), "a request that gets so far"));
            return;
        };
        for (name, value) in expected {
            let seen = actual.get(name);
            if seen != value.as_ref() {
                let show = |value: Option<&String>| {
                    value.map_or_else(|| "absent".to_owned(), |v| format!("\"{v}\""))
                };
                self.add(&format!("{what}.{name}"), show(value.as_ref()), show(seen));
            }
        }
    }

    fn limit(&mut self, what: &str, expected: Option<Limit>, actual: Option<Option<Millis>>) {
        let Some(expected) = expected else { return };
        let Some(actual) = actual else { return self.unseen(what, format!("{expected:?}")) };
        let wanted = match expected {
            Limit::None => None,
            Limit::After(millis) => Some(millis),
        };
        if wanted != actual {
            let show =
                |limit: Option<Millis>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            self.add(what, show(wanted), show(actual));
        }
    }

    fn retries(&mut self, expected: Option<&RetryExpectation>, observed: &Observed) {
        let Some(expected) = expected else { return };
        let Some(seen) = &observed.retries else { return self.unseen("retries", format!("{expected:?}")) };
        let RetryExpectation { attempts, per_try_timeout, on, backoff } = expected;
        self.equal("retries.attempts", attempts.as_ref(), Some(&seen.attempts));
        self.limit("retries.per_try_timeout", *per_try_timeout, Some(seen.per_try_timeout));
        self.equal("retries.backoff", backoff.as_ref(), Some(&seen.backoff));
        if let Some(on) = on {
            let sorted = |list: &[String]| {
                let mut list = list.to_vec();
                list.sort();
                list.join(",")
            };
            self.equal("retries.on", Some(&sorted(on)), Some(&sorted(&seen.on)));
        }
    }

    fn fault(&mut self, expected: Option<&FaultExpectation>, observed: &Observed) {
        let Some(expected) = expected else { return };
        let Some(seen) = &observed.fault else { return self.unseen("fault", format!("{expected:?}")) };
        let delay = |delay: &Option<(f64, Millis)>| match delay {
            Some((share, delay)) => format!("{share}% for {delay}"),
            None => "none".to_owned(),
        };
        let abort = |abort: &Option<(f64, String)>| match abort {
            Some((share, status)) => format!("{share}% with {status}"),
            None => "none".to_owned(),
        };
        self.equal("fault.delay", Some(&delay(&expected.delay)), Some(&delay(&seen.delay)));
        self.equal("fault.abort", Some(&abort(&expected.abort)), Some(&abort(&seen.abort)));
    }

    fn shares(
        &mut self,
        what: &str,
        expected: Option<&BTreeMap<String, f64>>,
        actual: Option<&[ObservedBackend]>,
        tolerance: f64,
    ) {
        let Some(expected) = expected else { return };
        let Some(actual) = actual else { return self.unseen(what, show_shares(expected)) };
        let seen = shares_by(expected.keys(), actual);
        let close = |name: &String, share: f64| {
            let wanted = expected.get(name).copied().unwrap_or(0.0);
            // Chance has no part in all and in nothing.
            let by_chance = if (0.001..=99.999).contains(&wanted) { tolerance } else { 0.0 };
            (wanted - share).abs() <= by_chance + 0.001
        };
        let same = seen.iter().all(|(name, share)| close(name, *share))
            && expected.keys().all(|name| seen.contains_key(name) || close(name, 0.0));
        if !same {
            self.add(what, show_shares(expected), show_shares(&seen));
        }
    }

    fn destination(&mut self, expected: Option<&serde_json::Value>, actual: Option<&[serde_json::Value]>) {
        let Some(expected) = expected else { return };
        let Some(actual) = actual else { return self.unseen("destination", expected.to_string()) };
        for seen in actual {
            self.contained("destination", expected, seen);
        }
        if actual.is_empty() {
            self.add("destination", expected.to_string(), "no destination");
        }
    }

    fn parts(
        &mut self,
        what: &str,
        expected: Option<&serde_json::Value>,
        actual: Option<&serde_json::Value>,
    ) {
        match (expected, actual) {
            (Some(expected), Some(actual)) => self.contained(what, expected, actual),
            (Some(expected), None) => self.unseen(what, expected.to_string()),
            (None, _) => {}
        }
    }

    fn contained(&mut self, what: &str, expected: &serde_json::Value, actual: &serde_json::Value) {
        if let (serde_json::Value::Object(expected), serde_json::Value::Object(seen)) = (expected, actual) {
            for (key, value) in expected {
                let inner = format!("{what}.{key}");
                self.contained(&inner, value, seen.get(key).unwrap_or(&serde_json::Value::Null));
            }
        } else if expected != actual {
            self.add(what, expected.to_string(), actual.to_string());
        }
    }

    fn diagnostics(
        &mut self,
        case: &Case,
        expected: &[String],
        excluded: &[String],
        actual: Option<&[Diagnostic]>,
    ) {
        let Some(actual) = actual else { return };
        let texts: Vec<String> = actual.iter().map(ToString::to_string).collect();
        for wanted in expected {
            if !texts.iter().any(|text| text.contains(wanted)) {
                self.add("diagnostics", wanted, or_none(&texts));
            }
        }
        for unwanted in excluded {
            if let Some(text) = texts.iter().find(|text| text.contains(unwanted)) {
                self.add("no_diagnostics", format!("nothing with \"{unwanted}\""), text);
            }
        }
        // A misspelt object of the case itself must not make the case pass by accident.
        for diagnostic in &case.diagnostics {
            let inline = diagnostic.at.file == case.place.file && diagnostic.severity == Severity::Error;
            let text = diagnostic.to_string();
            if inline && !expected.iter().any(|wanted| text.contains(wanted)) {
                self.add("diagnostics", "no error in the case's objects", text);
            }
        }
    }

    fn conditions(
        &mut self,
        expected: &BTreeMap<String, BTreeMap<String, String>>,
        statuses: &BTreeMap<ObjectKey, ObjectStatus>,
    ) {
        for (object, conditions) in expected {
            let status =
                statuses.iter().find(|(key, _)| key.to_string() == *object).map(|(_, status)| status);
            for (name, wanted) in conditions {
                let what = format!("conditions.{object}.{name}");
                let seen: Vec<String> = status.map(|status| said(status, name)).unwrap_or_default();
                let holds = |text: &String| text == wanted || text.split(' ').next() == Some(wanted);
                if !seen.iter().any(holds) {
                    self.add(&what, wanted, or_none(&seen));
                }
            }
        }
    }
}

/// `True REASON` for a condition of the object, its listeners and its parents.
fn said(status: &ObjectStatus, name: &str) -> Vec<String> {
    let ObjectStatus { conditions, parents, listeners } = status;
    let of_parents = parents.values().filter_map(|parent| parent.conditions.get(name));
    let of_listeners = listeners.values().filter_map(|listener| listener.conditions.get(name));
    let all = conditions.get(name).into_iter().chain(of_parents).chain(of_listeners);
    all.map(|Condition { status, reason, .. }| format!("{} {reason}", if *status { "True" } else { "False" }))
        .collect()
}

fn or_none(texts: &[String]) -> String {
    if texts.is_empty() { "none".to_owned() } else { texts.join("\n") }
}

/// The shares by the names that the case uses; what has none of them goes by its first name.
fn shares_by<'n>(
    names: impl Iterator<Item = &'n String> + Clone,
    backends: &[ObservedBackend],
) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for backend in backends {
        if let Some(name) = names.clone().find(|name| backend.names.contains(name)) {
            *shares.entry(name.clone()).or_default() += backend.share;
            continue;
        }
        let by_owner = names.clone().any(|name| backend.owners.contains_key(name));
        if by_owner {
            for (owner, share) in &backend.owners {
                *shares.entry(owner.clone()).or_default() += share;
            }
        } else if backend.share > 0.0 {
            let name = backend.names.first().cloned().unwrap_or_default();
            *shares.entry(name).or_default() += backend.share;
        }
    }
    shares
}

fn show_shares(shares: &BTreeMap<String, f64>) -> String {
    if shares.is_empty() {
        return "none".to_owned();
    }
    let parts: Vec<String> = shares.iter().map(|(name, share)| format!("{name}: {share:.4}%")).collect();
    parts.join(", ").replace(".0000%", "%")
}
