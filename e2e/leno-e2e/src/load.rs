//! The edge `load` → `back` under an open-loop load, GET and POST, half each.
//!
//! Invariant: a change is judged by the requests from before it until those under way at its end have ended.

use std::{io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{cluster::Cluster, mesh::APPS};

/// Requests a second of each of both.
const RATE: u64 = 250;
/// The one CoreDNS of a cluster loses datagrams when the machine is busy (its socket's RcvbufErrors count them); libc's next
/// try comes after 5 s, which is as long as the load waits.
const DNS: &str = "dnsConfig: {options: [{name: timeout, value: \"1\"}, {name: attempts, value: \"4\"}]}";
/// The load's own timeout, and a second for its next line.
const SETTLE: Duration = Duration::from_secs(11);
const KINDS: [&str; 2] = ["get", "post"];

/// What a load has printed last.
#[derive(Deserialize)]
struct Totals {
    requests: u64,
    failed: u64,
    seconds: f64,
    by_status: serde_json::Value,
    by_error: serde_json::Value,
    failures: Vec<serde_json::Value>,
}

/// Starts the load unless it runs.
pub(crate) fn start(cluster: &Cluster) -> anyhow::Result<()> {
    for kind in KINDS {
        let method = kind.to_uppercase();
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: load-{kind}, namespace: {APPS}, labels: {{app: load}}}}, spec: {{\
             serviceAccountName: load, {DNS}, containers: [{{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, \
             args: [load, --rate, \"{RATE}\", --method, {method}, \"http://back/\"]}}]}}}}"
        ))?;
    }
    cluster.run(&format!("-n {APPS} wait pod -l app=load --for=condition=Ready --timeout=60s"))?;
    sleep(Duration::from_secs(2));
    Ok(())
}

/// Does something under load; no request may fail.
pub(crate) fn unharmed(cluster: &Cluster, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    start(cluster)?;
    let before = KINDS.map(|kind| totals(cluster, kind));
    let changed = change();
    sleep(SETTLE);
    let mut problems = Vec::new();
    for (kind, before) in KINDS.into_iter().zip(before) {
        problems.extend(judge(kind, &before?, &totals(cluster, kind)?)?);
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    changed
}

/// What was wrong with the requests between two lines of one load.
fn judge(kind: &str, before: &Totals, after: &Totals) -> anyhow::Result<Option<String>> {
    let sent = after.requests.checked_sub(before.requests).context("the load was restarted")?;
    let failed = after.failed - before.failed;
    let _closed = writeln!(std::io::stdout(), "# {failed} of {sent} {kind} requests failed");
    if failed > 0 {
        let reasons = after
            .failures
            .iter()
            .skip(before.failures.len())
            .take(3)
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        return Ok(Some(format!(
            "{failed} of {sent} {kind} requests failed: {}; since its start {} {}",
            reasons.join(", "),
            after.by_status,
            after.by_error
        )));
    }
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let rate = sent as f64 / (after.seconds - before.seconds);
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let wanted = RATE as f64;
    Ok((rate <= 0.8 * wanted).then(|| format!("only {rate:.0} {kind} requests a second ended")))
}

fn totals(cluster: &Cluster, kind: &str) -> anyhow::Result<Totals> {
    let text = cluster.run(&format!("-n {APPS} logs load-{kind} -c app --tail=1"))?;
    serde_json::from_str(&text).with_context(|| format!("load-{kind} says `{text}`"))
}
