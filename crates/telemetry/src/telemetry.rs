//! One proxy's telemetry: series, registry and the ways out for records.
//!
//! Invariant: nothing here blocks or waits; what has no room is dropped and counted.
//! Must not know: how lines and spans are written.

use std::{sync::Arc, time::Duration, time::SystemTime};

use crate::{
    metrics::{Counter, DEFAULT_BUCKETS, Directory, Gauge, Registry, Shard, names},
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
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            build: env!("CARGO_PKG_VERSION").into(),
            series_budget: 4_000,
            series_idle_after: Duration::from_secs(3_600),
            histogram_buckets: DEFAULT_BUCKETS.to_vec(),
        }
    }
}

/// One proxy's telemetry.
#[derive(Debug)]
pub struct Telemetry {
    directory: Directory,
    registry: Registry,
    series: Gauge,
}

impl Telemetry {
    /// A new proxy's telemetry.
    pub fn new(config: TelemetryConfig) -> Arc<Self> {
        let TelemetryConfig { build, series_budget, series_idle_after, histogram_buckets } = config;
        let registry = Registry::default();
        registry.gauge(&names::BUILD, ["proxy", &build]).set(1.0);
        let overflowed: Counter = registry.counter(&names::SERIES_OVERFLOW, []);
        Arc::new(Self {
            directory: Directory::new(series_budget, series_idle_after, &histogram_buckets, overflowed),
            series: registry.gauge(&names::SERIES, []),
            registry,
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
        false
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
        drop(record);
    }

    pub(crate) fn pass_on_connection(&self, record: ConnectionRecord) {
        drop(record);
    }
}
