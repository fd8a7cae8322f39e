//! The outcome of a demo, for programs and as lines.
//!
//! Must not know: how anything of it came to be.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Overhead;

/// The outcome.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DemoReport {
    /// Seconds from the start until every workload and the gateway served.
    pub up_seconds: f64,
    /// Services.
    pub services: usize,
    /// Clusters.
    pub clusters: usize,
    /// Proxies, gateways included.
    pub proxies: usize,
    /// Requests that the load sent.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Plaintext connections to workloads that were answered.
    pub plaintext_accepted: u64,
    /// Whether every claim holds.
    pub holds: bool,
    /// The phases.
    pub phases: Vec<PhaseReport>,
    /// What both hops add to a request, in milliseconds. `None`: not measured, without the phase that does it.
    pub overhead_ms: Option<Overhead>,
}

/// The outcome of a phase.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// What is claimed.
    pub claim: String,
    /// Whether that was so.
    pub holds: bool,
    /// Requests that ended in it.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Median latency, stand-in applications and their calls included.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// What else was measured.
    pub figures: BTreeMap<&'static str, Value>,
    /// Why the claim does not hold.
    pub objections: Vec<String>,
}

/// A phase in lines: the verdict, the figures, what speaks against it.
pub(super) fn lines(phase: &PhaseReport) -> Vec<String> {
    let verdict = if phase.holds { "holds" } else { "DOES NOT HOLD" };
    let figures: Vec<String> = phase
        .figures
        .iter()
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), value.to_string().trim_matches('"')))
        .collect();
    let mut lines = vec![
        format!("{}: {}: {verdict}", phase.name, phase.claim),
        format!(
            "    {} requests, {} failed, p50 {:.2} ms, p99 {:.2} ms; {}",
            phase.requests,
            phase.failed,
            phase.p50_ms,
            phase.p99_ms,
            figures.join(", ")
        ),
    ];
    lines.extend(phase.objections.iter().map(|objection| format!("    but {objection}")));
    lines
}

/// The last line.
pub(super) fn summary(report: &DemoReport) -> String {
    let held = report.phases.iter().filter(|phase| phase.holds).count();
    let overhead = match &report.overhead_ms {
        Some(Overhead { p50, p99, outside_p50 }) => {
            format!("p50 {p50:.3} ms, p99 {p99:.3} ms (seen from outside: p50 {outside_p50:.3} ms)")
        }
        None => "not measured (the phase `steady` does)".to_owned(),
    };
    format!(
        "{held} of {} claims hold; {} requests, {} failed; plaintext accepted {}; what both hops add: {overhead}",
        report.phases.len(),
        report.requests,
        report.failed,
        report.plaintext_accepted,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overhead_that_was_not_measured_is_not_told_as_nothing() {
        let mut report = DemoReport::default();
        assert!(summary(&report).contains("both hops add: not measured"), "{}", summary(&report));
        report.overhead_ms = Some(Overhead { p50: 0.25, p99: 1.0, outside_p50: 0.5 });
        assert!(summary(&report).contains("both hops add: p50 0.250 ms"), "{}", summary(&report));
    }
}
