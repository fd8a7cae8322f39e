//! What a line says, whichever its form and whatever it is about.
//!
//! Invariant: the fields are in the order of Istio's JSON format; ours come after them.

use std::{net::SocketAddr, time::SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use crate::record::{ConnectionRecord, HttpVersion, RequestRecord};

/// The facts of a line. `None` is `-` in text and `null` in JSON.
#[derive(Serialize, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) start_time: String,
    pub(crate) route_name: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
    pub(crate) protocol: Option<&'a str>,
    pub(crate) response_code: u16,
    pub(crate) response_flags: String,
    pub(crate) response_code_details: Option<&'a str>,
    pub(crate) connection_termination_details: Option<&'a str>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) duration: u64,
    /// A text, because Istio takes it from a header.
    pub(crate) upstream_service_time: Option<String>,
    pub(crate) x_forwarded_for: Option<&'a str>,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) authority: Option<&'a str>,
    pub(crate) upstream_host: Option<SocketAddr>,
    pub(crate) upstream_cluster: Option<&'a str>,
    pub(crate) upstream_local_address: Option<SocketAddr>,
    pub(crate) downstream_local_address: Option<SocketAddr>,
    pub(crate) downstream_remote_address: Option<SocketAddr>,
    pub(crate) requested_server_name: Option<&'a str>,
    pub(crate) upstream_transport_failure_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overhead_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_overhead_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) denial_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of_request(record: &'a RequestRecord) -> Self {
        let mut facts = Self {
            start_time: time(record.start),
            response_code: record.response_code,
            response_flags: record.flags.to_string(),
            response_code_details: present(&record.details_code),
            bytes_received: record.bytes_received,
            bytes_sent: record.bytes_sent,
            duration: millis(record.duration),
            attempts: Some(record.attempts),
            grpc_status: record.grpc_status,
            overhead_micros: Some(record.overhead.total() / 1_000),
            peer_overhead_micros: record.peer_overhead,
            trace_id: record.trace.map(|trace| trace.trace.to_string()),
            ..Self::default()
        };
        if let Some(details) = record.details.as_deref() {
            facts.route_name = details.route_name.as_deref();
            facts.method = present(&details.method);
            facts.path = present(&details.path);
            facts.protocol = details.version.map(HttpVersion::name);
            facts.connection_termination_details = details.connection_termination.as_deref();
            facts.upstream_service_time = details.upstream_service_time.map(|millis| millis.to_string());
            facts.x_forwarded_for = details.forwarded_for.as_deref();
            facts.user_agent = details.user_agent.as_deref();
            facts.request_id = details.request_id.as_deref();
            facts.authority = details.authority.as_deref();
            facts.upstream_transport_failure_reason = details.upstream_transport_failure.as_deref();
            facts.denial_id = details.denial.as_deref();
            facts.addresses(&details.connection);
        }
        facts
    }

    pub(crate) fn of_connection(record: &'a ConnectionRecord) -> Self {
        let mut facts = Self {
            start_time: time(record.start),
            response_flags: record.flags.to_string(),
            response_code_details: present(&record.details_code),
            bytes_received: record.bytes_received,
            bytes_sent: record.bytes_sent,
            duration: millis(record.duration),
            denial_id: record.denial.as_deref(),
            ..Self::default()
        };
        if let Some(details) = record.details.as_deref() {
            facts.addresses(details);
        }
        facts
    }

    /// One JSON object and a line feed.
    pub(crate) fn json_line(&self) -> String {
        // Serialising texts and numbers into memory cannot fail.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    fn addresses(&mut self, details: &'a crate::record::ConnectionDetails) {
        self.upstream_host = details.upstream_host;
        self.upstream_cluster = details.upstream_cluster.as_deref();
        self.upstream_local_address = details.upstream_local;
        self.downstream_local_address = details.downstream_local;
        self.downstream_remote_address = details.downstream_remote;
        self.requested_server_name = details.server_name.as_deref();
    }
}

fn present<T: AsRef<str> + ?Sized>(text: &T) -> Option<&str> {
    Some(text.as_ref()).filter(|text| !text.is_empty())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Envoy's `%START_TIME%`: UTC with milliseconds.
fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| "-".to_owned(), |timestamp| format!("{timestamp:.3}"))
}
