//! What the phases have in common: time that passes, probes, and the judgement of what was counted.
//!
//! Invariant: every wait has a deadline, and one that ends there is an objection.
//! Must not know: what a phase is about.

use std::{collections::BTreeMap, time::Duration};

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;

use super::{
    DemoOptions, Event, PhaseReport, Say, measure,
    scenario::{PORT, Scenario},
    traffic::{Cut, STEP_HEADER, Traffic},
};
use crate::{
    mesh::{Mesh, NotReady},
    standin::{
        Dialer,
        client::{Client, Endpoint},
    },
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
const PROBE_AGAIN: Duration = Duration::from_millis(5);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How long a change may take to be in force everywhere until it counts as lost.
const IN_FORCE: Duration = Duration::from_secs(15);
/// So many answers in a row say that a change is in force at every endpoint.
const IN_A_ROW: u32 = 30;
/// Failures that are quoted.
const QUOTED: usize = 3;

/// What phases work with.
#[derive(Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) scenario: &'a Scenario,
    pub(super) traffic: &'a Traffic,
    pub(super) options: &'a DemoOptions,
    pub(super) say: &'a Say,
}

/// A phase's report, and what it adds to the whole.
pub(super) struct Outcome {
    pub(super) report: PhaseReport,
    pub(super) plaintext_accepted: u64,
}

/// Collects what speaks against a claim.
#[derive(Default)]
pub(super) struct Judgement {
    pub(super) figures: BTreeMap<&'static str, Value>,
    pub(super) objections: Vec<String>,
    pub(super) plaintext_accepted: u64,
    /// Whether a policy is meant to deny requests in this phase.
    pub(super) denies: bool,
}

/// What a probe saw.
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) step: Option<u32>,
}

/// Asks a service again and again.
pub(super) struct Probe {
    client: Client,
    to: Endpoint,
}

impl Probe {
    pub(super) fn new(dialer: Dialer, host: &str) -> Self {
        let to = Endpoint { host: host.to_owned(), port: PORT, http2: false };
        Self { client: Client::new(dialer, 1), to }
    }

    /// The first moment from which `wanted` answers come only. `None`: not in time.
    pub(super) async fn until(&self, since: Instant, wanted: impl Fn(&Seen) -> bool) -> Option<Duration> {
        let (mut first, mut in_a_row) = (None, 0);
        while since.elapsed() < IN_FORCE {
            let seen = timeout(PROBE_LIMIT, Box::pin(self.ask())).await.ok().flatten();
            if seen.as_ref().is_some_and(&wanted) {
                first.get_or_insert(since.elapsed());
                in_a_row += 1;
                if in_a_row == IN_A_ROW {
                    return first;
                }
            } else {
                in_a_row = 0;
            }
            sleep(PROBE_AGAIN).await;
        }
        None
    }

    async fn ask(&self) -> Option<Seen> {
        let host = format!("{}:{}", self.to.host, self.to.port);
        let request = Request::builder().method(Method::GET).uri("/").header(header::HOST, host);
        let response = self.client.send(&self.to, request.body(Body::empty()).ok()?).await.ok()?;
        let (head, body) = response.into_parts();
        body.collect().await.ok()?;
        let step = head.headers.get(STEP_HEADER).and_then(|step| step.to_str().ok()?.parse().ok());
        Some(Seen { status: head.status, step })
    }
}

impl Stage<'_> {
    /// Lets time pass under load.
    pub(super) async fn hold(&self, what: &str, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let (requests, failed) = self.traffic.so_far();
            (self.say)(Event::Live(&format!("{what}: {requests} requests so far, {failed} failed")));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK)).await;
        }
    }

    /// Waits until every proxy has acknowledged the newest generation. `None`: not in time; how many had.
    pub(super) async fn converged(&self, within: Duration) -> (Option<Duration>, u64, u64) {
        let since = Instant::now();
        loop {
            let (acknowledged, expected) = measure::acknowledged(self.mesh).await;
            if acknowledged == expected && expected > 0 {
                return (Some(since.elapsed()), acknowledged, expected);
            }
            if since.elapsed() > within {
                return (None, acknowledged, expected);
            }
            (self.say)(Event::Live(&format!("acknowledged {acknowledged} of {expected}")));
            sleep(LOOK).await;
        }
    }

    /// Asks some workloads in plaintext.
    pub(super) async fn try_plaintext(&self, judgement: &mut Judgement, at_most: usize) {
        let measure::Plaintext { asked, reached, accepted } = measure::plaintext(self.mesh, at_most).await;
        judgement.figure("plaintext_tried", asked);
        judgement.plaintext_accepted += accepted;
        judgement.require(reached == asked, || {
            format!("{} of {asked} workloads could not be asked in plaintext", asked - reached)
        });
        judgement.require(accepted == 0, || format!("{accepted} of {asked} workloads answered in plaintext"));
        judgement.require(asked > 0, || "no workload was asked in plaintext".to_owned());
    }
}

impl Judgement {
    pub(super) fn figure(&mut self, name: &'static str, value: impl Into<Value>) {
        self.figures.insert(name, value.into());
    }

    pub(super) fn seconds(&mut self, name: &'static str, time: Duration) {
        self.figure(name, (time.as_secs_f64() * 1000.0).round() / 1000.0);
    }

    pub(super) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.objections.push(otherwise());
        }
    }

    /// A change that must come into force; its time is a figure.
    pub(super) fn in_force(&mut self, name: &'static str, after: Option<Duration>) {
        match after {
            Some(after) => self.seconds(name, after),
            None => {
                self.objections.push(format!("{}: not in force within {IN_FORCE:?}", name.replace('_', " ")))
            }
        }
    }

    /// What is judged in every phase: nothing failed, and everybody is who they should be.
    pub(super) fn verdict(mut self, name: &str, claim: &str, cut: &Cut) -> Outcome {
        let strangers = cut.count(|answer| !answer.identified);
        self.require(cut.requests > 0, || "nothing was sent".to_owned());
        self.require(cut.failed == 0, || {
            let quoted = cut.failures.iter().take(QUOTED);
            let reasons: Vec<String> =
                quoted.map(|failure| format!("{}: {}", failure.target, failure.reason)).collect();
            format!("{} of {} requests failed ({})", cut.failed, cut.requests, reasons.join("; "))
        });
        self.require(strangers == 0, || {
            format!("{strangers} answers came from another service, or named another caller")
        });
        let denies = self.denies;
        self.require(denies || cut.denied == 0, || {
            format!("{} requests were denied without a policy", cut.denied)
        });
        self.require(cut.denied_without_id == 0, || format!("{} refusals had no id", cut.denied_without_id));
        let report = PhaseReport {
            name: name.to_owned(),
            claim: claim.to_owned(),
            holds: self.objections.is_empty(),
            requests: cut.requests,
            failed: cut.failed,
            p50_ms: cut.latency_ms(0.5),
            p99_ms: cut.latency_ms(0.99),
            figures: self.figures,
            objections: self.objections,
        };
        Outcome { report, plaintext_accepted: self.plaintext_accepted }
    }
}

/// Waits until everything is ready.
pub(super) async fn until_ready(mesh: &Mesh, within: Duration, say: &Say) -> Result<(), NotReady> {
    let mut changes = mesh.changes();
    let watching = async {
        loop {
            let text = {
                let record = changes.borrow_and_update();
                let workloads = || record.clusters.iter().flat_map(|cluster| &cluster.workloads);
                let ready = workloads().filter(|workload| workload.ready).count();
                format!("starting: {ready} of {} workloads are ready", workloads().count())
            };
            say(Event::Live(&text));
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        ready = mesh.ready(within) => ready,
        () = watching => Ok(()),
    }
}

/// Waits until a gateway serves. `None`: not in time.
pub(super) async fn until_gateway(mesh: &Mesh, within: Duration) -> Option<()> {
    let mut changes = mesh.changes();
    let serves = changes.wait_for(|record| {
        let mut gateways = record.clusters.iter().flat_map(|cluster| &cluster.gateways);
        gateways.any(|gateway| gateway.ready && !gateway.listeners.is_empty())
    });
    timeout(within, serves).await.ok()?.ok().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_in_which_something_is_denied_holds_only_where_a_policy_denies() {
        let denied = Cut { requests: 9, denied: 1, ..Cut::default() };
        let elsewhere = Judgement::default().verdict("region", "nothing fails", &denied).report;
        assert!(!elsewhere.holds && elsewhere.objections[0].contains("denied"), "{elsewhere:?}");
        let policy = Judgement { denies: true, ..Judgement::default() };
        assert!(policy.verdict("policy", "one is denied", &denied).report.holds);
    }
}
