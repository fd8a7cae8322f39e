//! Runs cases through real proxies, one world after the other.
//!
//! Invariants: a case with a request is sent or says why not; what shows is judged by the same `check` that judges `decide`.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream};
use leno_analyze::cases::{self, Caller, Case, Expect, Limit, Mismatch, Observed, Outcome, Request, Target};
use leno_compile::MeshSettings;

use crate::{
    call::{self, Call, Ended, Way},
    documents::Run,
    kinds::{self, Tally},
    measure,
    observe::{self, Before, Said},
    probes,
    rig::Rig,
    way::{self, Ways},
};

/// A call waits so long for its answer, and longer where a delay is injected.
const PATIENCE: Duration = Duration::from_secs(15);
/// Calls of one case at a time.
const AT_ONCE: usize = 16;
/// The same where some are delayed.
const DELAYED_AT_ONCE: usize = 100;
/// How long copies may take to arrive.
const COPIES: Duration = Duration::from_secs(3);
/// Copies that nobody expects have this long to arrive.
const NO_COPIES: Duration = Duration::from_millis(100);

/// What running a case gave.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) mismatches: Vec<Mismatch>,
    /// Why its request was not sent.
    pub(crate) unsent: Option<String>,
    pub(crate) wire: BTreeSet<&'static str>,
    pub(crate) published: BTreeSet<&'static str>,
}

/// What running a file gave.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) tally: Tally,
    /// The names of the cases that do not hold, with what differs.
    pub(crate) failures: Vec<(String, Vec<Mismatch>)>,
    /// The names of the cases that were not sent, and why.
    pub(crate) unsent: Vec<(String, String)>,
    /// What sent cases expect that did not show, by the names of the cases.
    pub(crate) unseen: Vec<(String, &'static str)>,
}

/// Runs cases in their order; those of one world that take long, at once.
pub(crate) async fn run(rig: &mut Rig, runs: &[Run]) -> Results {
    let mut results = Results::default();
    for group in runs.chunk_by(|one, other| std::sync::Arc::ptr_eq(&one.world, &other.world)) {
        rig.put(&group[0].world).await;
        let (rig, said) = (&*rig, Said::of(rig).await);
        let (slow, quick): (Vec<&Run>, Vec<&Run>) =
            group.iter().partition(|run| probes::is_slow(&run.case.expect));
        let mut ran = Vec::new();
        for run in quick {
            ran.push((run, one(rig, &run.case, &said).await));
        }
        let slow = slow.into_iter().map(async |run| (run, one(rig, &run.case, &said).await));
        ran.extend(join_all(slow).await);
        ran.into_iter().for_each(|(run, ran)| results.add(&run.case, ran));
    }
    results
}

impl Results {
    fn add(&mut self, case: &Case, ran: Ran) {
        let sent = case.request.is_some() && ran.unsent.is_none();
        self.tally.add(&case.expect, sent, &ran.wire, &ran.published);
        let shown = |kind: &&str| ran.wire.contains(kind) || ran.published.contains(kind);
        if sent {
            let unseen = kinds::expected(&case.expect).into_iter().filter(|kind| !shown(kind));
            self.unseen.extend(unseen.map(|kind| (case.name.clone(), kind)));
        }
        if !ran.mismatches.is_empty() {
            self.failures.push((case.name.clone(), ran.mismatches));
        }
        self.unsent.extend(ran.unsent.map(|why| (case.name.clone(), why)));
    }
}

async fn one(rig: &Rig, case: &Case, said: &Said) -> Ran {
    let mut ran = Ran::default();
    said_of_objects(case, said, &mut ran);
    let told_of_itself = match &case.from {
        Caller::Workload(from) if case.expect.workload.is_some() => rig.published.workload(from),
        _ => None,
    };
    let Some(request) = &case.request else { return ran };
    let ways = match way::of(rig, case, request).await {
        Ok(ways) => ways,
        Err(why) => {
            ran.unsent = Some(why);
            return ran;
        }
    };
    let predicted = cases::run(case, &MeshSettings::default()).observed;
    let before = Before::of(rig).await;
    let ended = send(case, request, &ways, &predicted).await;
    let mut observed =
        observe::calls(rig, (&case.expect, &request.target), (&predicted, &ways), &before, &ended).await;
    probes::all(rig, (case, request), &ways, &predicted, &mut observed, &mut ran).await;
    if case.expect.mirror.is_some() {
        observed.mirrors = Some(mirrors(rig, case, &predicted, &ended).await);
    }
    if case.expect.protocol.is_some()
        && let Caller::Workload(from) = &case.from
    {
        observed.protocol = observe::protocol(rig, &request.target, &from.namespace, &ended);
    }
    if case.expect.destination.is_some()
        && let Some(client) = ways.client
    {
        let backends = predicted.backends.as_deref().unwrap_or_default();
        observed.destinations = observe::destinations(client, backends).await;
    }
    observed.workload = told_of_itself;
    observed.listener = predicted.listener.as_ref().and_then(|like| rig.published.listener(like));
    note(&case.expect, &observed, &mut ran);
    ran.mismatches.extend(cases::check(case, &observed));
    ran
}

async fn send(case: &Case, request: &Request, ways: &Ways, predicted: &Observed) -> Vec<Ended> {
    let calls = measure::calls(&case.expect).max(ways.ways.len());
    let delay = case.expect.fault.as_ref().and_then(|fault| fault.delay);
    let patience = PATIENCE + delay.map_or(Duration::ZERO, |(_, delay)| delay.duration());
    // Where a balancer shares, calls under way weigh in; one after the other, they are as likely to go to each server.
    let balanced = predicted.backends.iter().flatten().any(|backend| backend.owners.len() > 1);
    let at_once = match (delay, balanced) {
        (Some(_), _) => DELAYED_AT_ONCE,
        (None, true) => 1,
        (None, false) => AT_ONCE,
    };
    let number = number_of(case);
    let made = (0..calls).map(|index| {
        let way = ways.ways[index % ways.ways.len()];
        async move { call(way, number, request, None, patience).await }
    });
    stream::iter(made).buffer_unordered(at_once).collect().await
}

/// One call of a case's request.
pub(crate) async fn call(
    way: Way,
    number: u64,
    request: &Request,
    told: Option<String>,
    patience: Duration,
) -> Ended {
    let Target::Http { scheme, host, port, path } = &request.target else {
        return call::bytes(way, number, request.sni.as_deref(), patience).await;
    };
    let default = if scheme == "https" { 443 } else { 80 };
    let own = if *port == default { host.clone() } else { format!("{host}:{port}") };
    let named = request.headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
    let call = Call {
        case: number,
        method: request.method.clone(),
        authority: named.unwrap_or(own),
        path: path.clone(),
        headers: request.headers.clone(),
        tls: (scheme == "https").then(|| request.sni.clone().unwrap_or_else(|| host.clone())),
        told,
        patience,
    };
    call::http(way, &call).await
}

/// A number that only this case's calls carry.
pub(crate) fn number_of(case: &Case) -> u64 {
    u64::from(case.place.line) * 10
}

async fn mirrors(
    rig: &Rig,
    case: &Case,
    predicted: &Observed,
    ended: &[Ended],
) -> Vec<cases::ObservedBackend> {
    let number = number_of(case);
    if case.expect.mirror.as_ref().is_some_and(|shares| shares.is_empty()) {
        tokio::time::sleep(NO_COPIES).await;
    }
    let deadline = tokio::time::Instant::now() + COPIES;
    loop {
        let copies = measure::copies(&rig.ledger.of_case(number), ended);
        let seen = measure::mirrors(predicted, &copies, ended.len());
        if measure::mirrors_are_there(&case.expect, &seen) || tokio::time::Instant::now() > deadline {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Diagnostics and conditions, as the control plane publishes them.
fn said_of_objects(case: &Case, said: &Said, ran: &mut Ran) {
    let Expect { diagnostics, no_diagnostics, conditions, .. } = &case.expect;
    let mut differs = |what: &str, expected: &str, actual: String| {
        ran.mismatches.push(Mismatch { what: what.to_owned(), expected: expected.to_owned(), actual });
    };
    // `analyze` finds more than a control plane says; its codes begin with LN2.
    let is_published = |wanted: &&String| !wanted.starts_with("LN2");
    for wanted in diagnostics.iter().filter(is_published) {
        if !said.diagnostics.iter().any(|text| text.contains(wanted)) {
            differs("diagnostics", wanted, said.diagnostics.join("\n"));
        }
    }
    for unwanted in no_diagnostics {
        if let Some(text) = said.diagnostics.iter().find(|text| text.contains(unwanted)) {
            differs("no_diagnostics", unwanted, text.clone());
        }
    }
    for (object, wanted) in conditions {
        for (name, wanted) in wanted {
            let seen = said.conditions.get(object).into_iter().flatten().filter(|(kind, _)| kind == name);
            let seen: Vec<&str> = seen.map(|(_, said)| said.as_str()).collect();
            if !seen.iter().any(|said| said == wanted || said.split(' ').next() == Some(wanted)) {
                differs(&format!("conditions.{object}.{name}"), wanted, seen.join(", "));
            }
        }
    }
    if diagnostics.iter().all(|wanted| is_published(&wanted)) {
        ran.published.insert("diagnostics");
    }
    ran.published.extend(["no_diagnostics", "conditions"]);
}

/// Which of the expectations what was observed decides.
fn note(expect: &Expect, observed: &Observed, ran: &mut Ran) {
    let forwarded = observed.forwarded_path.is_some();
    let is_answer = !matches!(observed.outcome, Some(Outcome::Forwarded | Outcome::Passthrough));
    let shown = [
        ("backends", observed.backends.is_some()),
        ("status", observed.status.is_some()),
        ("location", observed.location.is_some()),
        ("body", observed.body.is_some() && is_answer),
        ("reason", observed.reason.is_some()),
        ("forwarded.path", forwarded),
        ("forwarded.host", forwarded),
        ("forwarded.headers", forwarded),
        ("response_headers", observed.response_headers.is_some()),
        ("timeout", observed.timeout.is_some() && expect.timeout != Some(Limit::None)),
        ("attempt_timeout", observed.attempt_timeout.is_some()),
        ("fault", observed.fault.is_some()),
        ("mirror", observed.mirrors.is_some()),
        ("denied.policy", observed.denial.is_some()),
        ("denied.rule", observed.denial.is_some()),
        ("mtls", observed.mtls.is_some()),
        ("protocol", observed.protocol.is_some()),
    ];
    ran.wire.extend(shown.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind));
    if observed.outcome.is_some() {
        ran.wire.extend(["denied", "allowed", "no_route", "plaintext_refused", "passthrough"]);
    }
    if observed.destinations.is_some() {
        ran.published.insert("destination");
    }
    if observed.workload.is_some() {
        ran.published.insert("workload");
    }
    if observed.listener.is_some() {
        ran.published.insert("listener");
    }
}
