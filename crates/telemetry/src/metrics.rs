//! Metrics: what is counted, and how Prometheus reads it.
//!
//! Traffic goes through [`Shard`]: one per core, plain cells with one writer, resolved once per label set. Everything
//! else (rare events, gauges, the control plane's metrics) goes through the [`Registry`].
//! Invariant: recording a request whose label set is known takes no lock and no atomic read-modify-write.
//!
//! | module | holds |
//! | --- | --- |
//! | [`names`] | every metric of the proxy: name, help, labels |
//! | `cell` | counters with one writer |
//! | `buckets` | bucket bounds and histograms with one writer |
//! | `labels` | Istio's labels in their exact order |
//! | `directory` | all label sets of one proxy, the budget and expiry |
//! | `shard` | one core's part |
//! | `registry` | counters, gauges and histograms that any thread may touch |
//! | `text` | the exposition format |

mod buckets;
mod cell;
mod directory;
mod labels;
pub mod names;
mod registry;
mod shard;
mod text;

pub use buckets::{Buckets, DEFAULT_BUCKETS};
pub(crate) use directory::Directory;
pub use registry::{Counter, CounterDef, Gauge, GaugeDef, Histogram, HistogramDef, Registry};
pub use shard::Shard;
