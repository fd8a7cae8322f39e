//! Metrics, access records, trace context and exporters.
//!
//! The proxy fills a [`RequestRecord`] or [`ConnectionRecord`] when a request or connection ends and gives it to its
//! core's [`Shard`]; everything that is counted, logged or traced comes from that one record.
//! Invariant: no globals. Each proxy has its own [`Telemetry`], and hundreds live in one process.
//! Must not know: sockets of the data path, configuration, Kubernetes.
//!
//! | module | holds |
//! | --- | --- |
//! | [`record`] | the facts of a finished request or connection |
//! | [`flags`] | Envoy's response flags |
//! | [`overhead`] | what the mesh itself cost a request, by step |
//! | [`metrics`] | per-core series, the registry of other metrics, Prometheus text |
//! | [`trace_context`] | W3C trace context, request ids |
//! | [`telemetry`] | one proxy's telemetry: the above put together |

#![forbid(unsafe_code)]

pub mod flags;
pub mod metrics;
pub mod overhead;
pub mod record;
pub mod telemetry;
pub mod trace_context;

pub use flags::ResponseFlags;
pub use metrics::{Counter, CounterDef, Gauge, GaugeDef, Histogram, HistogramDef, Registry, Shard};
pub use overhead::{OVERHEAD_HEADER, Overhead, Step};
pub use record::{
    ConnectionDetails, ConnectionRecord, ConnectionSecurity, HttpVersion, PeerMeta, Reporter, RequestDetails,
    RequestProtocol, RequestRecord, ServiceMeta,
};
pub use telemetry::{Telemetry, TelemetryConfig};
pub use trace_context::{SpanContext, SpanId, TraceId, TraceParent};
