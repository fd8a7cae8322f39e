//! Counters, gauges and histograms that any thread may touch: rare events, state, the control plane's metrics.
//!
//! A metric is declared once as a constant ([`CounterDef`], [`GaugeDef`], [`HistogramDef`]) with its name, help and
//! labels; a handle is got once for each set of label values, and is cheap to keep and to touch.
//! Invariant: at most `MOST_SERIES` label sets for each metric; more share the `overflow` one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    buckets::{Buckets, HistogramTotal},
    text,
};

/// Most label sets of one metric.
const MOST_SERIES: usize = 2_000;

/// A counter's declaration. The name ends in `_total`.
#[derive(Clone, Copy, Debug)]
pub struct CounterDef<const N: usize> {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Its labels.
    pub labels: [&'static str; N],
}

/// A gauge's declaration.
#[derive(Clone, Copy, Debug)]
pub struct GaugeDef<const N: usize> {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub help: &'static str,
    /// Its labels.
    pub labels: [&'static str; N],
}

/// A histogram's declaration.
#[derive(Clone, Copy, Debug)]
pub struct HistogramDef<const N: usize> {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it measures.
    pub help: &'static str,
    /// Its labels.
    pub labels: [&'static str; N],
    /// Upper bounds, ascending.
    pub buckets: &'static [f64],
    /// Parts a unit is recorded in: a power of ten, such as 1,000,000,000 for seconds and 1 for bytes.
    pub per_unit: u32,
}

/// A number that only grows.
#[derive(Clone, Default, Debug)]
pub struct Counter(Arc<AtomicU64>);

/// A number that goes up and down.
#[derive(Clone, Default, Debug)]
pub struct Gauge(Arc<AtomicU64>);

/// A distribution.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<SharedHistogram>);

#[derive(Debug)]
struct SharedHistogram {
    buckets: Buckets,
    per_unit: u32,
    cells: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The metrics of one proxy or control plane that are not traffic.
#[derive(Default, Debug)]
pub struct Registry {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: &'static str,
    series: BTreeMap<String, Series>,
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds to the value; negative to subtract.
    pub fn add(&self, amount: f64) {
        let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        // The closure never refuses, so there is no failure to handle.
        let _ = self.0.fetch_update(Relaxed, Relaxed, add);
    }

    /// The value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Histogram {
    fn new(bounds: &[f64], per_unit: u32) -> Self {
        let buckets = Buckets::new(bounds, per_unit);
        let cells = (0..buckets.cells()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(SharedHistogram { buckets, per_unit, cells, sum: AtomicU64::new(0) }))
    }

    /// Records a value in the metric's unit; what is negative or not a number counts as 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn observe(&self, value: f64) {
        // A cast of a float saturates and takes NaN for 0.
        self.record((value * f64::from(self.0.per_unit)).round() as u64);
    }

    /// Records a time, for a metric in seconds.
    pub fn observe_duration(&self, value: Duration) {
        self.observe(value.as_secs_f64());
    }

    fn record(&self, value: u64) {
        if let Some(cell) = self.0.cells.get(self.0.buckets.index(value)) {
            cell.fetch_add(1, Relaxed);
        }
        self.0.sum.fetch_add(value, Relaxed);
    }

    fn total(&self) -> HistogramTotal {
        HistogramTotal {
            cells: self.0.cells.iter().map(|cell| cell.load(Relaxed)).collect(),
            sum: self.0.sum.load(Relaxed),
        }
    }
}

impl Registry {
    /// The counter with these label values.
    pub fn counter<const N: usize>(&self, def: &CounterDef<N>, values: [&str; N]) -> Counter {
        let fresh = || Series::Counter(Counter::default());
        match self.series(def.name, "counter", def.help, &def.labels, &values, fresh) {
            Some(Series::Counter(counter)) => counter,
            _ => Counter::default(),
        }
    }

    /// Shows a counter that was made before the registry knew of it.
    pub fn adopt_counter<const N: usize>(&self, def: &CounterDef<N>, values: [&str; N], counter: &Counter) {
        let fresh = || Series::Counter(counter.clone());
        self.series(def.name, "counter", def.help, &def.labels, &values, fresh);
    }

    /// The gauge with these label values.
    pub fn gauge<const N: usize>(&self, def: &GaugeDef<N>, values: [&str; N]) -> Gauge {
        let fresh = || Series::Gauge(Gauge::default());
        match self.series(def.name, "gauge", def.help, &def.labels, &values, fresh) {
            Some(Series::Gauge(gauge)) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The histogram with these label values.
    pub fn histogram<const N: usize>(&self, def: &HistogramDef<N>, values: [&str; N]) -> Histogram {
        let fresh = || Series::Histogram(Histogram::new(def.buckets, def.per_unit));
        match self.series(def.name, "histogram", def.help, &def.labels, &values, fresh) {
            Some(Series::Histogram(histogram)) => histogram,
            _ => Histogram::new(def.buckets, def.per_unit),
        }
    }

    /// Forgets a gauge whose subject is gone.
    pub fn remove_gauge<const N: usize>(&self, def: &GaugeDef<N>, values: [&str; N]) {
        if let Some(family) = self.families.lock().get_mut(def.name) {
            family.series.remove(&render(&def.labels, &values));
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_into(&mut out);
        out
    }

    pub(crate) fn render_into(&self, out: &mut String) {
        for (name, family) in self.families.lock().iter().filter(|(_, family)| !family.series.is_empty()) {
            text::head(out, name, family.kind, family.help);
            for (labels, series) in &family.series {
                match series {
                    Series::Counter(counter) => text::sample(out, name, labels, counter.value()),
                    Series::Gauge(gauge) => text::sample(out, name, labels, gauge.value()),
                    Series::Histogram(histogram) => {
                        text::histogram(out, name, labels, &histogram.0.buckets, &histogram.total());
                    }
                }
            }
        }
    }

    /// `None` when the name is taken by a metric of another kind: a defect of the caller, which must not panic a
    /// proxy; the handle it gets then is not shown.
    fn series(
        &self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        labels: &[&str],
        values: &[&str],
        fresh: impl FnOnce() -> Series,
    ) -> Option<Series> {
        let mut families = self.families.lock();
        let family = families.entry(name).or_insert_with(|| Family { kind, help, series: BTreeMap::new() });
        debug_assert_eq!(family.kind, kind, "{name} is declared twice");
        if family.kind != kind {
            return None;
        }
        let mut key = render(labels, values);
        if family.series.len() >= MOST_SERIES && !family.series.contains_key(&key) {
            key = render(labels, &vec!["overflow"; labels.len()]);
        }
        Some(family.series.entry(key).or_insert_with(fresh).clone())
    }
}

fn render(labels: &[&str], values: &[&str]) -> String {
    let mut out = String::new();
    labels.iter().zip(values).for_each(|(name, value)| text::label(&mut out, name, value));
    out
}
