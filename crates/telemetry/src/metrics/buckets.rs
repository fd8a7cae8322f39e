//! Bucket bounds, and histograms with one writer.
//!
//! Invariant: bounds are ascending and finite; a histogram has one cell more than there are bounds (`+Inf`).

use std::sync::Arc;

use super::cell::Cell;

/// Envoy's default bounds, for milliseconds and bytes alike (CONTRACTS section 1).
pub const DEFAULT_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Most bounds a histogram may have; more are cut off.
const MOST_BOUNDS: usize = 64;

/// Bucket bounds in a metric's unit, compared as integers of a smaller one.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Upper bounds in recorded units.
    limits: Arc<[u64]>,
    /// The same as the exposition's `le` says them.
    text: Arc<[String]>,
    /// Recorded units in one unit of the metric.
    per_unit: u32,
}

impl Buckets {
    /// Bounds from numbers in the metric's unit; `per_unit` recorded units make one of those.
    ///
    /// Bounds that are not finite and positive are left out, the rest is sorted.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn new(bounds: &[f64], per_unit: u32) -> Self {
        let mut kept: Vec<f64> = bounds.iter().copied().filter(|b| b.is_finite() && *b > 0.0).collect();
        kept.sort_by(f64::total_cmp);
        kept.dedup();
        kept.truncate(MOST_BOUNDS);
        Self {
            // A recorded value is whole, so comparing it with the bound rounded down is exact.
            limits: kept.iter().map(|bound| (bound * f64::from(per_unit) + 1e-9).floor() as u64).collect(),
            text: kept.iter().map(f64::to_string).collect(),
            per_unit,
        }
    }

    /// The number of cells a histogram has.
    pub(crate) fn cells(&self) -> usize {
        self.limits.len() + 1
    }

    /// The cell a value belongs to.
    #[inline]
    pub(crate) fn index(&self, value: u64) -> usize {
        self.limits.partition_point(|limit| *limit < value)
    }

    /// The `le` labels, without `+Inf`.
    pub(crate) fn bounds(&self) -> &[String] {
        &self.text
    }

    /// A sum of recorded units in the metric's unit, as text.
    pub(crate) fn sum_text(&self, sum: u64) -> String {
        if self.per_unit == 1 {
            return sum.to_string();
        }
        let per_unit = u64::from(self.per_unit);
        let digits = self.per_unit.ilog10() as usize;
        let (whole, rest) = (sum / per_unit, sum % per_unit);
        if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:0digits$}") }
    }
}

/// A histogram that one thread writes and any thread reads.
#[derive(Debug)]
pub(crate) struct LocalHistogram {
    cells: Box<[Cell]>,
    sum: Cell,
}

impl LocalHistogram {
    pub(crate) fn new(buckets: &Buckets) -> Self {
        Self { cells: (0..buckets.cells()).map(|_| Cell::default()).collect(), sum: Cell::default() }
    }

    /// Records a value; by the one writer.
    #[inline]
    pub(crate) fn record(&self, buckets: &Buckets, value: u64) {
        if let Some(cell) = self.cells.get(buckets.index(value)) {
            cell.add(1);
        }
        self.sum.add(value);
    }

    /// Adds what was recorded to a total.
    pub(crate) fn add_to(&self, total: &mut HistogramTotal) {
        total.cells.resize(total.cells.len().max(self.cells.len()), 0);
        for (sum, cell) in total.cells.iter_mut().zip(&self.cells) {
            *sum += cell.value();
        }
        total.sum = total.sum.wrapping_add(self.sum.value());
    }
}

/// What several histograms of the same bounds recorded together.
#[derive(Default, Debug, Clone)]
pub(crate) struct HistogramTotal {
    /// Counts by cell, not cumulative.
    pub(crate) cells: Vec<u64>,
    /// Sum in recorded units.
    pub(crate) sum: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_the_bound_is_in_the_bucket() {
        let buckets = Buckets::new(&DEFAULT_BUCKETS, 1_000);
        assert_eq!(buckets.index(0), 0);
        assert_eq!(buckets.index(500), 0);
        assert_eq!(buckets.index(501), 1);
        assert_eq!(buckets.index(1_000), 1);
        assert_eq!(buckets.index(u64::MAX), 19);
        let bytes = Buckets::new(&DEFAULT_BUCKETS, 1);
        assert_eq!(bytes.index(0), 0);
        assert_eq!(bytes.index(1), 1);
        assert_eq!(bytes.bounds()[0], "0.5");
        assert_eq!(bytes.bounds()[18], "3600000");
    }

    #[test]
    fn sums_are_written_in_the_metrics_unit() {
        let millis = Buckets::new(&[1.0], 1_000);
        assert_eq!(millis.sum_text(1_500), "1.500");
        assert_eq!(millis.sum_text(2_000), "2");
        assert_eq!(Buckets::new(&[1.0], 1_000_000).sum_text(50), "0.000050");
    }

    #[test]
    fn bounds_that_make_no_sense_are_left_out() {
        let buckets = Buckets::new(&[5.0, f64::NAN, -1.0, 1.0, f64::INFINITY, 5.0], 1);
        assert_eq!(buckets.bounds(), ["1", "5"]);
    }
}
