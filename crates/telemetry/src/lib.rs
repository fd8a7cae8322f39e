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
//! | [`access_log`] | one line for each request or connection, in Istio's forms |
//! | [`trace_context`] | W3C trace context, request ids |
//! | `span`, [`otlp`] | records as OpenTelemetry spans, and their export; [`proto`] has the messages |
//! | [`flight`] | the last refusals with their reasons |
//! | [`telemetry`] | one proxy's telemetry: the above put together |

#![forbid(unsafe_code)]

pub mod access_log;
pub mod flags;
pub mod flight;
pub mod metrics;
pub mod otlp;
pub mod overhead;
pub mod proto;
pub mod record;
mod span;
pub mod telemetry;
pub mod trace_context;

pub use access_log::{AccessLog, AccessLogBuffer, AccessLogConfig, AccessLogFormat, AccessLogSink};
pub use flags::ResponseFlags;
pub use flight::{DenialRecord, FlightRecorder};
pub use metrics::{Counter, CounterDef, Gauge, GaugeDef, Histogram, HistogramDef, Registry, Shard};
pub use otlp::{OtlpConfig, Spans};
pub use overhead::{OVERHEAD_HEADER, Overhead, Step};
pub use record::{
    ConnectionDetails, ConnectionRecord, ConnectionSecurity, HttpVersion, PeerMeta, Reporter, RequestDetails,
    RequestProtocol, RequestRecord, ServiceMeta,
};
pub use telemetry::{Telemetry, TelemetryConfig};
pub use trace_context::{SpanContext, SpanId, TraceId, TraceParent};
