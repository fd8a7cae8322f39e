//! Metrics, access records, trace context and exporters.
