//! Every metric of the proxy, declared once: name, help and labels.
//!
//! Invariant: Istio's names and meanings are CONTRACTS section 1; our own start with `leno_`.

use super::registry::{CounterDef, GaugeDef, HistogramDef};

/// A traffic family: its labels are Istio's.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub help: &'static str,
}

/// Requests.
pub const REQUESTS: Name = Name { name: "istio_requests_total", help: "Requests handled." };
/// Duration of requests.
pub const REQUEST_DURATION: Name =
    Name { name: "istio_request_duration_milliseconds", help: "Duration of requests in milliseconds." };
/// Size of request bodies.
pub const REQUEST_BYTES: Name =
    Name { name: "istio_request_bytes", help: "Size of request bodies in bytes." };
/// Size of response bodies.
pub const RESPONSE_BYTES: Name =
    Name { name: "istio_response_bytes", help: "Size of response bodies in bytes." };
/// gRPC messages from clients.
pub const REQUEST_MESSAGES: Name =
    Name { name: "istio_request_messages_total", help: "gRPC messages sent by clients." };
/// gRPC messages from servers.
pub const RESPONSE_MESSAGES: Name =
    Name { name: "istio_response_messages_total", help: "gRPC messages sent by servers." };
/// Bytes sent to the client of a TCP connection.
pub const TCP_SENT: Name =
    Name { name: "istio_tcp_sent_bytes_total", help: "Bytes sent in response on TCP connections." };
/// Bytes received from the client of a TCP connection.
pub const TCP_RECEIVED: Name =
    Name { name: "istio_tcp_received_bytes_total", help: "Bytes received in request on TCP connections." };
/// TCP connections opened.
pub const TCP_OPENED: Name =
    Name { name: "istio_tcp_connections_opened_total", help: "TCP connections opened." };
/// TCP connections closed.
pub const TCP_CLOSED: Name =
    Name { name: "istio_tcp_connections_closed_total", help: "TCP connections closed." };
/// Time the mesh itself added; labels `step` and `hop` (`client`, `server`, `both`).
pub const OVERHEAD: Name = Name {
    name: "leno_request_overhead_seconds",
    help: "Time the mesh itself added to requests, by step and hop, without waiting for the upstream.",
};

/// Bounds of [`OVERHEAD`], in seconds.
pub const OVERHEAD_BUCKETS: [f64; 16] = [
    0.000_025, 0.000_05, 0.000_075, 0.000_1, 0.000_15, 0.000_2, 0.000_3, 0.000_4, 0.000_5, 0.000_75, 0.001,
    0.002_5, 0.005, 0.01, 0.025, 0.05,
];

/// The build; the value is 1.
pub const BUILD: GaugeDef<2> =
    GaugeDef { name: "istio_build", help: "Component and version, value 1.", labels: ["component", "tag"] };

/// Requests and connections refused by policy.
pub const DENIALS: CounterDef<2> = CounterDef {
    name: "leno_denials_total",
    help: "Requests and connections refused by policy.",
    labels: ["policy", "reason"],
};
/// Attempts after the first.
pub const RETRIES: CounterDef<1> =
    CounterDef { name: "leno_retries_total", help: "Attempts after the first.", labels: ["reason"] };
/// Plaintext connections refused because mTLS is required.
pub const PLAINTEXT_REFUSED: CounterDef<1> = CounterDef {
    name: "leno_plaintext_refused_total",
    help: "Plaintext connections refused because mutual TLS is required.",
    labels: ["port"],
};
/// Whether capture works.
pub const CAPTURE_WORKS: GaugeDef<0> = GaugeDef {
    name: "leno_capture_works",
    help: "1 while the proxy sees that the application's connections are redirected to it, else 0.",
    labels: [],
};
/// Looks at capture that failed.
pub const CAPTURE_FAILURES: CounterDef<1> = CounterDef {
    name: "leno_capture_failures_total",
    help: "Times the proxy looked whether its capture works and it did not, by what happened to its probe.",
    labels: ["cause"],
};
/// Open connections.
pub const CONNECTIONS_OPEN: GaugeDef<1> = GaugeDef {
    name: "leno_connections_open",
    help: "Open connections by side (downstream, upstream).",
    labels: ["side"],
};
/// The generation in force.
pub const CONFIG_PUBLICATION: GaugeDef<0> = GaugeDef {
    name: "leno_config_publication",
    help: "Publication number of the configuration in force.",
    labels: [],
};
/// Resources refused.
pub const CONFIG_REJECTIONS: CounterDef<1> = CounterDef {
    name: "leno_config_rejections_total",
    help: "Resources of the control plane that were refused.",
    labels: ["kind"],
};
/// End of the workload certificate.
pub const CERTIFICATE_EXPIRY: GaugeDef<0> = GaugeDef {
    name: "leno_certificate_expiry_seconds",
    help: "End of the workload certificate, seconds since 1970.",
    labels: [],
};
/// Ejections.
pub const EJECTIONS: CounterDef<2> = CounterDef {
    name: "leno_ejections_total",
    help: "Endpoints taken out of balancing because they failed.",
    labels: ["service", "reason"],
};
/// Time of a probe between networks.
pub const NETWORK_PROBE: HistogramDef<1> = HistogramDef {
    name: "leno_network_probe_seconds",
    help: "Round trips of small messages, less the calls that write and read them. to=loopback: between two threads of this proxy, what the kernel adds to each hop.",
    labels: ["to"],
    buckets: &[
        0.000_01, 0.000_02, 0.000_03, 0.000_04, 0.000_05, 0.000_06, 0.000_08, 0.000_1, 0.000_125, 0.000_15,
        0.000_2, 0.000_3, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
    ],
    per_unit: 1_000_000_000,
};
/// Requests held until their service's configuration came.
pub const ON_DEMAND: CounterDef<1> = CounterDef {
    name: "leno_on_demand_total",
    help: "Requests held until their service's configuration came, by outcome.",
    labels: ["outcome"],
};
/// Live traffic series.
pub const SERIES: GaugeDef<0> =
    GaugeDef { name: "leno_metric_series", help: "Label sets of traffic metrics in use.", labels: [] };
/// Label sets beyond the budget.
pub const SERIES_OVERFLOW: CounterDef<0> = CounterDef {
    name: "leno_metric_series_overflow_total",
    help: "Times a label set was put into the overflow series because the budget was spent.",
    labels: [],
};
/// Log lines lost.
pub const ACCESS_LOG_DROPPED: CounterDef<0> = CounterDef {
    name: "leno_access_log_dropped_total",
    help: "Access log lines lost because the writer was behind or failed.",
    labels: [],
};
/// Spans exported.
pub const SPANS_EXPORTED: CounterDef<0> =
    CounterDef { name: "leno_spans_exported_total", help: "Spans the collector accepted.", labels: [] };
/// Spans lost.
pub const SPANS_DROPPED: CounterDef<1> = CounterDef {
    name: "leno_spans_dropped_total",
    help: "Spans lost, by reason (queue, collector, refused).",
    labels: ["reason"],
};
