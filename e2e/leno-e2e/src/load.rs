//! An edge under an open-loop load, GET and POST, half each; `back` is called unless a check says otherwise.
//!
//! Invariants: a change is judged by the requests from before it until those under way at its end have ended; one edge is
//! loaded at a time.

use std::{io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::{cluster::Cluster, mesh::APPS};

/// The one CoreDNS of a cluster loses datagrams when the machine is busy (its socket's RcvbufErrors count them); libc's next
/// try comes after 5 s, which is as long as the load waits.
const DNS: &str = "dnsConfig: {options: [{name: timeout, value: \"1\"}, {name: attempts, value: \"4\"}]}";
/// The load's own timeout, and a second for its next line.
const SETTLE: Duration = Duration::from_secs(11);
const KINDS: [&str; 2] = ["get", "post"];

/// Who is called, and how often.
pub(crate) struct Edge<'a> {
    /// Names the load's pods.
    pub(crate) name: &'a str,
    pub(crate) server: &'a str,
    pub(crate) path: &'a str,
    /// Requests a second of each of both methods.
    pub(crate) rate: u64,
    /// The node that the load's pods are on.
    pub(crate) node: Option<&'a str>,
    /// The server's address, when its name is to be known without DNS.
    pub(crate) address: Option<&'a str>,
}

const BACK: Edge<'_> = Edge { name: "load", server: "back", path: "/", rate: 250, node: None, address: None };

/// What became of the requests of one method.
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// All of them, unless there were more than a load tells.
    pub(crate) failures: Vec<Failure>,
    /// Requests that ended a second.
    pub(crate) rate: f64,
    reasons: String,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Failure {
    pub(crate) number: u64,
    /// Seconds from the load's start.
    pub(crate) at_seconds: f64,
    reason: String,
}

/// What a load has printed last.
#[derive(Deserialize)]
struct Totals {
    requests: u64,
    failed: u64,
    seconds: f64,
    by_status: serde_json::Value,
    by_error: serde_json::Value,
    failures: Vec<Failure>,
}

/// Does something under the load on `back`; no request may fail.
pub(crate) fn unharmed(cluster: &Cluster, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    BACK.unharmed(cluster, change)
}

/// Ends every load.
pub(crate) fn stop(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.run(&format!("-n {APPS} delete pod -l app=load --timeout=60s")).map(drop)
}

impl Edge<'_> {
    /// Starts the load unless it runs, and ends those of other edges.
    pub(crate) fn start(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let Self { name, server, path, rate, node, address } = self;
        cluster.run(&format!("-n {APPS} delete pod -l app=load,edge!={name} --timeout=60s"))?;
        let node = node.map(|node| format!("nodeSelector: {{kubernetes.io/hostname: {node}}}, "));
        let node = node.unwrap_or_default();
        let known = address.map(|it| format!("hostAliases: [{{ip: \"{it}\", hostnames: [{server}]}}], "));
        let known = known.unwrap_or_default();
        for kind in KINDS {
            let method = kind.to_uppercase();
            cluster.apply(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}-{kind}, namespace: {APPS}, labels: {{app: load, edge: {name}}}}}, spec: {{\
                 serviceAccountName: load, {DNS}, {node}{known}containers: [{{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, \
                 args: [load, --rate, \"{rate}\", --method, {method}, \"http://{server}{path}\"]}}]}}}}"
            ))?;
        }
        cluster.run(&format!("-n {APPS} wait pod -l app=load --for=condition=Ready --timeout=60s"))?;
        sleep(Duration::from_secs(2));
        Ok(())
    }

    /// Does something under load; no request may fail.
    pub(crate) fn unharmed(
        &self,
        cluster: &Cluster,
        change: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (seen, changed) = self.during(cluster, change)?;
        let problems = seen.iter().filter_map(Seen::problem).chain(self.slow(&seen)).collect::<Vec<_>>();
        ensure!(problems.is_empty(), "{}", problems.join("; "));
        changed
    }

    /// Does something under load, and what became of the requests.
    pub(crate) fn counted(
        &self,
        cluster: &Cluster,
        change: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Seen>> {
        let (seen, changed) = self.during(cluster, change)?;
        changed?;
        let slow = self.slow(&seen).collect::<Vec<_>>();
        ensure!(slow.is_empty(), "{}", slow.join("; "));
        Ok(seen)
    }

    fn during(
        &self,
        cluster: &Cluster,
        change: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<(Vec<Seen>, anyhow::Result<()>)> {
        self.start(cluster)?;
        let before = KINDS.map(|kind| self.totals(cluster, kind));
        let changed = change();
        sleep(SETTLE);
        let mut seen = Vec::new();
        for (kind, before) in KINDS.into_iter().zip(before) {
            let between = Seen::between(kind, &before?, self.totals(cluster, kind)?)?;
            let Seen { kind, sent, failed, .. } = &between;
            let _closed = writeln!(std::io::stdout(), "# {failed} of {sent} {kind} requests failed");
            seen.push(between);
        }
        Ok((seen, changed))
    }

    fn slow(&self, seen: &[Seen]) -> impl Iterator<Item = String> {
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let wanted = self.rate as f64;
        let slow = seen.iter().filter(move |seen| seen.rate <= 0.8 * wanted);
        slow.map(|seen| format!("only {:.0} {} requests a second ended", seen.rate, seen.kind))
    }

    fn totals(&self, cluster: &Cluster, kind: &str) -> anyhow::Result<Totals> {
        let name = self.name;
        let text = cluster.run(&format!("-n {APPS} logs {name}-{kind} -c app --tail=1"))?;
        serde_json::from_str(&text).with_context(|| format!("{name}-{kind} says `{text}`"))
    }
}

impl Seen {
    fn between(kind: &'static str, before: &Totals, after: Totals) -> anyhow::Result<Self> {
        let Totals { requests, failed, seconds, by_status, by_error, mut failures } = after;
        let sent = requests.checked_sub(before.requests).context("the load was restarted")?;
        failures.drain(..before.failures.len().min(failures.len()));
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let rate = sent as f64 / (seconds - before.seconds);
        let failed = failed - before.failed;
        let reasons = format!("since its start {by_status} {by_error}");
        Ok(Self { kind, sent, failed, failures, rate, reasons })
    }

    /// What was wrong, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { kind, sent, failed, failures, rate: _, reasons } = self;
        let first = failures.iter().take(3).map(|failure| serde_json::json!(failure).to_string());
        let first = first.collect::<Vec<_>>().join(", ");
        (*failed > 0).then(|| format!("{failed} of {sent} {kind} requests failed: {first}; {reasons}"))
    }
}
