//! One proxy's telemetry: series, registry and the ways out for records.
//!
//! Invariant: nothing here blocks or waits; what has no room is dropped and counted.
//! Must not know: how lines and spans are written.

use std::{sync::Arc, time::Duration, time::SystemTime};

use crate::{
    access_log::AccessLog,
    flight::{DenialRecord, FlightRecorder},
    metrics::{Counter, DEFAULT_BUCKETS, Directory, Gauge, Registry, Shard, names},
    otlp::Spans,
    record::{ConnectionRecord, RequestRecord},
};

/// What one proxy's telemetry is made of.
#[derive(Debug)]
pub struct TelemetryConfig {
    /// The version shown in `istio_build`.
    pub build: Box<str>,
    /// Most label sets of traffic metrics; more go to `overflow`.
    pub series_budget: usize,
    /// After this time without a change a label set is forgotten.
    pub series_idle_after: Duration,
    /// Bounds of Istio's histograms (annotation `sidecar.istio.io/statsHistogramBuckets`).
    pub histogram_buckets: Vec<f64>,
    /// The access log; its writer is spawned by the caller.
    pub access_log: Option<AccessLog>,
    /// The spans' queue; its exporter is spawned by the caller.
    pub spans: Option<Spans>,
    /// Most refusals kept for `leno why`.
    pub denials_kept: usize,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            build: env!("CARGO_PKG_VERSION").into(),
            series_budget: 4_000,
            series_idle_after: Duration::from_secs(3_600),
            histogram_buckets: DEFAULT_BUCKETS.to_vec(),
            access_log: None,
            spans: None,
            denials_kept: 1_000,
        }
    }
}

/// One proxy's telemetry.
#[derive(Debug)]
pub struct Telemetry {
    directory: Directory,
    registry: Registry,
    series: Gauge,
    access_log: Option<AccessLog>,
    spans: Option<Spans>,
    flight: FlightRecorder,
}

impl Telemetry {
    /// A new proxy's telemetry.
    pub fn new(config: TelemetryConfig) -> Arc<Self> {
        let TelemetryConfig {
            build,
            series_budget,
            series_idle_after,
            histogram_buckets,
            access_log,
            spans,
            denials_kept,
        } = config;
        let registry = Registry::default();
        registry.gauge(&names::BUILD, ["proxy", &build]).set(1.0);
        if let Some(log) = &access_log {
            registry.adopt_counter(&names::ACCESS_LOG_DROPPED, [], log.dropped());
        }
        if let Some(counters) = spans.as_ref().map(Spans::counters) {
            registry.adopt_counter(&names::SPANS_EXPORTED, [], &counters.exported);
            registry.adopt_counter(&names::SPANS_DROPPED, ["queue"], &counters.dropped_queue);
            registry.adopt_counter(&names::SPANS_DROPPED, ["collector"], &counters.dropped_collector);
            registry.adopt_counter(&names::SPANS_DROPPED, ["refused"], &counters.dropped_refused);
        }
        let overflowed: Counter = registry.counter(&names::SERIES_OVERFLOW, []);
        Arc::new(Self {
            directory: Directory::new(series_budget, series_idle_after, &histogram_buckets, overflowed),
            series: registry.gauge(&names::SERIES, []),
            registry,
            access_log,
            spans,
            flight: FlightRecorder::new(denials_kept),
        })
    }

    /// A new shard, for one thread.
    pub fn shard(self: &Arc<Self>) -> Shard {
        Shard::new(Arc::clone(self))
    }

    /// The metrics that are not traffic.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether records should carry their details: somebody logs or traces.
    pub fn wants_details(&self) -> bool {
        self.access_log.is_some() || self.spans.is_some()
    }

    /// Keeps a refusal for `leno why`, and counts it.
    pub fn denial(&self, denial: DenialRecord, reason: &str) {
        let policy = denial.policy.as_deref().unwrap_or("none");
        self.registry.counter(&names::DENIALS, [policy, reason]).add(1);
        self.flight.record(denial);
    }

    /// The last refusals.
    pub fn flight(&self) -> &FlightRecorder {
        &self.flight
    }

    /// Everything, as Prometheus reads it.
    #[allow(clippy::cast_precision_loss)]
    pub fn render(&self) -> String {
        self.series.set(self.directory.series() as f64);
        let mut out = String::with_capacity(16 * 1024);
        self.directory.render(&mut out);
        self.registry.render_into(&mut out);
        out
    }

    /// Forgets series that were idle for long. To be called every minute or so.
    pub fn expire_idle(&self, now: SystemTime) {
        self.directory.sweep(now);
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn pass_on_request(&self, record: RequestRecord) {
        let is_sampled = record.trace.is_some_and(|trace| trace.sampled);
        let spans = self.spans.as_ref().filter(|_| is_sampled);
        match (&self.access_log, spans) {
            (None, None) => {}
            (log, spans) => {
                let record = Arc::new(record);
                if let Some(spans) = spans {
                    spans.offer(Arc::clone(&record));
                }
                if let Some(log) = log {
                    log.request(record);
                }
            }
        }
    }

    pub(crate) fn pass_on_connection(&self, record: ConnectionRecord) {
        if let Some(log) = &self.access_log {
            log.connection(record);
        }
    }
}
