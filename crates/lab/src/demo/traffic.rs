//! The demo's load: several open loops, as applications and as outsiders, whose answers say who answered and how.
//!
//! Invariants: every request is in exactly one [`Cut`]; an answer that is not from the service that was called, or that
//! names another caller than ours, is counted as such.
//! Must not know: phases and their claims.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use http::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    DemoError,
    scenario::{PORT, Scenario, Service},
};
use crate::{
    load::{Arrivals, Failure, Handle, Label, Load, PhaseStats, Plan, Target},
    mesh::Mesh,
    standin::Dialer,
};

/// The header that the canary's route adds.
pub(super) const STEP_HEADER: &str = "x-canary-step";
const DENIAL_HEADER: &str = "x-leno-denial";
const REPORTS: &str = "reports";
/// How long requests under way may take to end when the load pauses.
const SETTLE: Duration = Duration::from_secs(10);

/// The running load.
pub(super) struct Traffic {
    loads: Vec<(&'static str, Handle)>,
}

/// What an answer said; see [`label`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    /// The service that answered is the one that was called, and it was told who called.
    pub(super) identified: bool,
    /// The canary's step, on answers of `checkout`.
    pub(super) step: Option<u32>,
    /// The version that answered.
    pub(super) version: String,
    /// The cluster that answered.
    pub(super) cluster: String,
}

/// What happened between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    pub(super) requests: u64,
    /// Failures, refusals by policy apart where they may be expected (`reports`).
    pub(super) failed: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Option<Histogram<u64>>,
    pub(super) answers: BTreeMap<Answer, u64>,
    /// Refusals of `reports` with and without an id, and its answers that were no refusals.
    pub(super) denied: u64,
    pub(super) denied_without_id: u64,
    pub(super) reports_allowed: u64,
    /// Median of the ledger as `web` sees it, where nothing else is called: to compare with the same without a mesh.
    pub(super) ledger_p50_ms: f64,
    pub(super) failures: Vec<Failure>,
}

impl Cut {
    /// Adds what came next.
    pub(super) fn add(&mut self, next: &Self) {
        self.requests += next.requests;
        self.failed += next.failed;
        self.seconds += next.seconds;
        self.denied += next.denied;
        self.denied_without_id += next.denied_without_id;
        self.reports_allowed += next.reports_allowed;
        self.failures.extend(next.failures.iter().cloned());
        for (answer, count) in &next.answers {
            *self.answers.entry(answer.clone()).or_default() += count;
        }
        add_latencies(&mut self.latencies, next.latencies.as_ref());
    }

    /// A percentile of the latencies, in milliseconds.
    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latencies.as_ref().map_or(0.0, |latencies| latencies.value_at_quantile(quantile) as f64 / 1000.0)
    }

    /// Answers that say something.
    pub(super) fn count(&self, says: impl Fn(&Answer) -> bool) -> u64 {
        self.answers.iter().filter(|(answer, _)| says(answer)).map(|(_, count)| count).sum()
    }
}

fn add_latencies(to: &mut Option<Histogram<u64>>, from: Option<&Histogram<u64>>) {
    match (to.as_mut(), from) {
        // Both resize themselves, so that adding cannot fail.
        (Some(to), Some(from)) => {
            let _ = to.add(from);
        }
        (None, Some(from)) => *to = Some(from.clone()),
        (_, None) => {}
    }
}

impl Traffic {
    /// Starts the load: so many requests a second in all.
    pub(super) fn start(mesh: &Mesh, scenario: &Scenario, rate: f64) -> Result<Self, DemoError> {
        let kept: Vec<&str> = scenario.kept().collect();
        let clusters: Arc<[String]> = scenario.clusters.iter().map(|cluster| cluster.name.clone()).collect();
        let share = 0.75 / kept.len() as f64;
        let mut loads = Vec::new();
        for (index, cluster) in kept.iter().enumerate() {
            let targets = targets_of_web(scenario, index, kept.len(), &clusters);
            loads.push(("web", start(rate * share, targets, dialer(mesh, cluster, "web")?, index)?));
        }
        let ledger = scenario.service("ledger").ok_or(DemoError::Scenario("the ledger"))?;
        let probe = Target { name: "probe".to_owned(), ..target(ledger, "web", &clusters, 1) };
        loads.push(("probe", start(rate * 0.05, vec![probe], dialer(mesh, kept[0], "web")?, 10)?));
        let reports = Target { expected: vec![200, 403], ..target(ledger, REPORTS, &clusters, 1) };
        loads.push((REPORTS, start(rate * 0.05, vec![reports], dialer(mesh, kept[0], REPORTS)?, 11)?));
        let gateway = gateway(mesh).ok_or(DemoError::Scenario("the gateway"))?;
        let web = scenario.service("web").ok_or(DemoError::Scenario("web"))?;
        let mut page = Target::get(&gateway.ip().to_string(), gateway.port(), "/");
        page.label = Some(label(web, None, &clusters));
        loads.push(("gateway", start(rate * 0.15, vec![page], Dialer::to_addresses(), 12)?));
        Ok(Self { loads })
    }

    /// What happened since the last cut.
    pub(super) fn cut(&self) -> Cut {
        let mut cut = Cut::default();
        for (source, handle) in &self.loads {
            let stats = handle.cut_phase();
            cut.seconds = cut.seconds.max(stats.seconds);
            if *source == "probe" {
                cut.ledger_p50_ms = stats.p50_ms;
            }
            take(&mut cut, source, stats);
        }
        cut
    }

    /// Requests and failures since the start, for the live line.
    pub(super) fn so_far(&self) -> (u64, u64) {
        let stats = self.loads.iter().map(|(_, handle)| handle.snapshot());
        stats.fold((0, 0), |sum, stats| (sum.0 + stats.requests, sum.1 + stats.failed))
    }

    /// Sends nothing until `resume`, and waits until nothing is under way.
    pub(super) async fn pause(&self) {
        self.loads.iter().for_each(|(_, handle)| handle.pause());
        let deadline = Instant::now() + SETTLE;
        let (mut seen, mut same) = (self.so_far().0, 0);
        // Nothing tells that a load is idle but that its numbers stand still.
        while same < 5 && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
            let requests = self.so_far().0;
            same = if requests == seen { same + 1 } else { 0 };
            seen = requests;
        }
    }

    /// Sends again.
    pub(super) fn resume(&self) {
        self.loads.iter().for_each(|(_, handle)| handle.resume());
    }

    /// Sends nothing more.
    pub(super) async fn stop(self) {
        futures_util::future::join_all(self.loads.into_iter().map(|(_, handle)| handle.stop())).await;
    }
}

/// A load straight to an application, past all proxies.
pub(super) fn direct(app: SocketAddr, rate: f64) -> Result<Handle, DemoError> {
    start(rate, vec![Target::get(&app.ip().to_string(), app.port(), "/")], Dialer::to_addresses(), 20)
}

/// Dials as a replica of a workload of `front` does.
pub(super) fn dialer(mesh: &Mesh, cluster: &str, workload: &str) -> Result<Dialer, DemoError> {
    let name = format!("front/{workload}-{cluster}");
    mesh.dialer(cluster, &name).ok_or(DemoError::NoWorkload(name))
}

/// Where the gateway listens.
fn gateway(mesh: &Mesh) -> Option<SocketAddr> {
    let record = mesh.record();
    let mut listeners =
        record.clusters.iter().flat_map(|it| &it.gateways).flat_map(|gateway| &gateway.listeners);
    listeners.next().map(|listener| listener.address)
}

fn start(rate: f64, targets: Vec<Target>, dialer: Dialer, seed: usize) -> Result<Handle, DemoError> {
    let plan = Plan {
        arrivals: Arrivals::Poisson,
        keep_failures: 5,
        seed: seed as u64 + 1,
        ..Plan::new(rate, targets, dialer)
    };
    Ok(Load::start(plan)?)
}

/// The canary, the ledger, and this caller's share of the others.
fn targets_of_web(
    scenario: &Scenario,
    caller: usize,
    callers: usize,
    clusters: &Arc<[String]>,
) -> Vec<Target> {
    let others = scenario.others().iter().enumerate().filter(|(index, _)| index % callers == caller);
    let mut targets: Vec<Target> = others.map(|(_, service)| target(service, "web", clusters, 2)).collect();
    let all = u32::try_from(targets.len()).unwrap_or(1);
    let canary = scenario.service("checkout").map(|service| target(service, "web", clusters, all + 2));
    let ledger = scenario.service("ledger").map(|service| target(service, "web", clusters, all / 2 + 1));
    targets.extend(canary.into_iter().chain(ledger));
    targets
}

fn target(service: &Service, caller: &str, clusters: &Arc<[String]>, weight: u32) -> Target {
    let mut target = Target::get(&service.host(), PORT, "/");
    target.name = service.host();
    target.weight = weight;
    target.label =
        Some(label(service, Some(format!("spiffe://cluster.local/ns/front/sa/{caller}")), clusters));
    target
}

/// Names an answer as an [`Answer`] in JSON-less form: `identified|step|version|cluster`, `denied|id`.
fn label(service: &Service, caller: Option<String>, clusters: &Arc<[String]>) -> Label {
    let (by, app, namespace) = (format!("By={}", service.identity()), service.app.clone(), service.namespace);
    let caller = caller.map(|caller| format!("URI={caller}"));
    let clusters = clusters.clone();
    Arc::new(move |head, body| {
        if head.status == StatusCode::FORBIDDEN {
            let has_id = head.headers.get(DENIAL_HEADER).is_some_and(|id| !id.is_empty());
            return Some(if has_id { "denied|id" } else { "denied|" }.to_owned());
        }
        if head.status != StatusCode::OK {
            return None;
        }
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let xfcc = answer["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
        let mut parts = xfcc.split(';');
        let identified = answer["service"] == *app
            && answer["namespace"] == *namespace
            && parts.clone().any(|part| part == by)
            && caller.as_ref().is_none_or(|caller| parts.any(|part| part == caller));
        let step = head.headers.get(STEP_HEADER).and_then(|step| step.to_str().ok()).unwrap_or_default();
        let pod = answer["pod"].as_str().unwrap_or_default();
        let cluster = clusters.iter().find(|cluster| pod.contains(&format!("-{cluster}-")));
        Some(format!(
            "{}|{step}|{}|{}",
            if identified { "yes" } else { "no" },
            answer["version"].as_str().unwrap_or_default(),
            cluster.map_or("", String::as_str)
        ))
    })
}

fn take(cut: &mut Cut, source: &str, stats: PhaseStats) {
    let PhaseStats { requests, failed, by_label, failures, latencies, .. } = stats;
    cut.requests += requests;
    cut.failed += failed;
    cut.failures.extend(failures);
    add_latencies(&mut cut.latencies, latencies.as_ref());
    for (label, count) in by_label {
        let parts: Vec<&str> = label.split('|').collect();
        match *parts.as_slice() {
            ["denied", id] if source == REPORTS => {
                cut.denied += count;
                cut.denied_without_id += if id.is_empty() { count } else { 0 };
            }
            [identified, step, version, cluster] => {
                cut.reports_allowed += if source == REPORTS { count } else { 0 };
                let answer = Answer {
                    identified: identified == "yes",
                    step: step.parse().ok(),
                    version: version.to_owned(),
                    cluster: cluster.to_owned(),
                };
                *cut.answers.entry(answer).or_default() += count;
            }
            // A refusal of another caller: a failure by its status.
            _ => {}
        }
    }
}
