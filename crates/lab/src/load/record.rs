//! Latencies, counts, and the first failures, for the phase and for the whole.
//!
//! Invariant: a request is counted once, in the phase in which it ends.
//! Must not know: schedules.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

const MAX_LABELS: usize = 1000;
/// What a longer latency is recorded as.
const LONGEST: Duration = Duration::from_secs(3600);

/// The numbers of a phase, or of the whole load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PhaseStats {
    /// Requests that ended, failures included.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Seconds that it covers.
    pub seconds: f64,
    /// Median latency from the scheduled moment, of the requests that had an answer.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Answers by status: `200`, `grpc 0`.
    pub by_status: BTreeMap<String, u64>,
    /// Requests without an answer by reason: `connect`, `name`, `broken`, `timeout`, `overrun`.
    pub by_error: BTreeMap<String, u64>,
    /// Requests and failures by target.
    pub by_target: BTreeMap<String, (u64, u64)>,
    /// Answers by the name that the target's `label` gave them.
    pub by_label: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The latencies themselves, in microseconds, to be added to those of other loads.
    #[serde(skip)]
    pub latencies: Option<Histogram<u64>>,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Seconds from the start of the phase to the request's end.
    pub at_seconds: f64,
    /// The number that the request was made with.
    pub number: u64,
    /// The target.
    pub target: String,
    /// The status or the reason.
    pub reason: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Http(u16),
    Grpc(u16),
    /// No answer: the kind, and the whole reason.
    None(&'static str, String),
}

/// One request.
pub(super) struct Ended<'a> {
    pub(super) number: u64,
    pub(super) target: &'a str,
    pub(super) outcome: Outcome,
    pub(super) failed: bool,
    pub(super) latency: Duration,
    pub(super) label: Option<String>,
}

pub(super) struct Recorder {
    phase: Tally,
    total: Tally,
    keep: usize,
}

struct Tally {
    since: Instant,
    latencies: Histogram<u64>,
    stats: PhaseStats,
}

impl Recorder {
    pub(super) fn new(keep: usize) -> Self {
        Self { phase: Tally::new(), total: Tally::new(), keep }
    }

    pub(super) fn record(&mut self, ended: &Ended<'_>) {
        self.phase.record(ended, self.keep);
        self.total.record(ended, self.keep);
    }

    /// Since the start.
    pub(super) fn total(&self) -> PhaseStats {
        self.total.stats()
    }

    /// Ends the phase and begins the next.
    pub(super) fn cut(&mut self) -> PhaseStats {
        std::mem::replace(&mut self.phase, Tally::new()).stats()
    }
}

impl Tally {
    fn new() -> Self {
        let mut latencies = Histogram::new(3).expect("3 significant digits are valid");
        latencies.auto(true);
        Self { since: Instant::now(), latencies, stats: PhaseStats::default() }
    }

    fn record(&mut self, ended: &Ended<'_>, keep: usize) {
        let stats = &mut self.stats;
        stats.requests += 1;
        let reason = match &ended.outcome {
            Outcome::Http(status) => {
                let status = status.to_string();
                count(&mut stats.by_status, &status);
                status
            }
            Outcome::Grpc(status) => {
                let status = format!("grpc {status}");
                count(&mut stats.by_status, &status);
                status
            }
            Outcome::None(kind, reason) => {
                count(&mut stats.by_error, kind);
                format!("{kind}: {reason}")
            }
        };
        if !matches!(ended.outcome, Outcome::None(..)) {
            let micros = u64::try_from(ended.latency.min(LONGEST).as_micros()).unwrap_or(u64::MAX);
            // Fails only beyond the range, which grows by itself.
            let _recorded = self.latencies.record(micros);
        }
        if let Some(label) = &ended.label
            && (stats.by_label.len() < MAX_LABELS || stats.by_label.contains_key(label))
        {
            count(&mut stats.by_label, label);
        }
        if !stats.by_target.contains_key(ended.target) {
            stats.by_target.insert(ended.target.to_owned(), (0, 0));
        }
        if let Some((requests, failed)) = stats.by_target.get_mut(ended.target) {
            *requests += 1;
            *failed += u64::from(ended.failed);
        }
        if ended.failed {
            stats.failed += 1;
            if stats.failures.len() < keep {
                let at_seconds = self.since.elapsed().as_secs_f64();
                let (number, target) = (ended.number, ended.target.to_owned());
                stats.failures.push(Failure { at_seconds, number, target, reason });
            }
        }
    }

    fn stats(&self) -> PhaseStats {
        let ms = |micros: u64| micros as f64 / 1000.0;
        PhaseStats {
            seconds: self.since.elapsed().as_secs_f64(),
            p50_ms: ms(self.latencies.value_at_quantile(0.5)),
            p90_ms: ms(self.latencies.value_at_quantile(0.9)),
            p99_ms: ms(self.latencies.value_at_quantile(0.99)),
            max_ms: ms(self.latencies.max()),
            latencies: Some(self.latencies.clone()),
            ..self.stats.clone()
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}
