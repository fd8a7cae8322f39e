//! Tests of the module above.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::{
    flags::ResponseFlags,
    overhead::Step,
    record::{
        ConnectionDetails, HttpVersion, PeerMeta, Reporter, RequestDetails, ServiceMeta, outbound_cluster,
    },
};

const TEXT: &str = "[2023-11-14T22:13:20.123Z] \"GET /reviews/0?a=1 HTTP/1.1\" 503 UF,URX upstream_reset_before_response_started{connection_failure} - \"delayed connect error: 111\" 0 91 12 - \"10.1.1.1\" \"curl/8\" \"id-1\" \"reviews:9080\" \"10.0.0.7:9080\" outbound|9080|v1|reviews.default.svc.cluster.local - 10.96.0.1:9080 10.0.0.3:40000 - default\n";

#[test]
fn the_text_format_is_istios_default() {
    assert_eq!(Entry::Request(Arc::new(request())).line(AccessLogFormat::Text), TEXT);
}

#[test]
fn the_json_format_has_istios_fields_in_order_and_then_ours() {
    let line = Entry::Request(Arc::new(request())).line(AccessLogFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "start_time",
            "route_name",
            "method",
            "path",
            "protocol",
            "response_code",
            "response_flags",
            "response_code_details",
            "connection_termination_details",
            "bytes_received",
            "bytes_sent",
            "duration",
            "upstream_service_time",
            "x_forwarded_for",
            "user_agent",
            "request_id",
            "authority",
            "upstream_host",
            "upstream_cluster",
            "upstream_local_address",
            "downstream_local_address",
            "downstream_remote_address",
            "requested_server_name",
            "upstream_transport_failure_reason",
            "attempts",
            "overhead_micros",
            "denial_id",
        ]
    );
    assert_eq!(value["response_code"], 503);
    assert_eq!(value["upstream_host"], "10.0.0.7:9080");
    assert_eq!(value["requested_server_name"], serde_json::Value::Null);
    assert_eq!(value["overhead_micros"], 150);
    assert_eq!(value["denial_id"], "d-1");
}

#[test]
fn a_peer_cannot_forge_a_line_or_a_field() {
    let mut record = request();
    if let Some(details) = record.details.as_deref_mut() {
        details.user_agent = Some("x\" \"y\\\n[2023] \"GET".into());
    }
    let record = Arc::new(record);
    let text = Entry::Request(Arc::clone(&record)).line(AccessLogFormat::Text);
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(r#""x\" \"y\\\n[2023] \"GET""#), "{text}");
    let json = Entry::Request(record).line(AccessLogFormat::Json);
    assert_eq!(json.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["user_agent"], "x\" \"y\\\n[2023] \"GET");
}

#[test]
fn a_connection_has_dashes_where_a_request_has_its_head() {
    let mut record = ConnectionRecord::new(
        Reporter::Destination,
        PeerMeta::unknown(),
        PeerMeta::unknown(),
        ServiceMeta::unknown(),
        UNIX_EPOCH,
    );
    record.bytes_received = 5;
    record.bytes_sent = 7;
    record.duration = Duration::from_millis(3);
    let line = Entry::Connection(Box::new(record)).line(AccessLogFormat::Text);
    let wanted = "[1970-01-01T00:00:00.000Z] \"- - -\" 0 - - - \"-\" 5 7 3 - \"-\" \"-\" \"-\" \"-\" \"-\" - - - - - -\n";
    assert_eq!(line, wanted);
}

#[tokio::test]
async fn lines_arrive_in_order_and_what_has_no_room_is_counted() {
    let buffer = AccessLogBuffer::default();
    let config = AccessLogConfig {
        format: AccessLogFormat::Text,
        sink: AccessLogSink::Buffer(buffer.clone()),
        queue: 2,
    };
    let (log, writer) = AccessLog::open(config).unwrap();
    for _ in 0..3 {
        log.request(Arc::new(request()));
    }
    assert_eq!(log.dropped().value(), 1);
    writer.run(std::future::ready(())).await;
    assert_eq!(buffer.take(), format!("{TEXT}{TEXT}"));
}

#[tokio::test]
async fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    for _ in 0..2 {
        let sink = AccessLogSink::File(path.clone());
        let config = AccessLogConfig { format: AccessLogFormat::Text, sink, queue: 2 };
        let (log, writer) = AccessLog::open(config).unwrap();
        log.request(Arc::new(request()));
        drop(log);
        writer.run(std::future::pending()).await;
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{TEXT}{TEXT}"));
}

fn request() -> RequestRecord {
    let mut record = RequestRecord::new(
        Reporter::Source,
        PeerMeta::unknown(),
        PeerMeta::unknown(),
        ServiceMeta::unknown(),
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
    );
    record.response_code = 503;
    record.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::UPSTREAM_RETRY_LIMIT);
    record.details_code = Cow::Borrowed("upstream_reset_before_response_started{connection_failure}");
    record.bytes_sent = 91;
    record.duration = Duration::from_micros(12_900);
    record.attempts = 3;
    record.overhead.add(Step::Parse, 150_000);
    record.details = Some(Box::new(RequestDetails {
        method: "GET".into(),
        path: "/reviews/0?a=1".into(),
        version: Some(HttpVersion::Http11),
        authority: Some("reviews:9080".into()),
        user_agent: Some("curl/8".into()),
        request_id: Some("id-1".into()),
        forwarded_for: Some("10.1.1.1".into()),
        route_name: Some("default".into()),
        upstream_transport_failure: Some("delayed connect error: 111".into()),
        denial: Some("d-1".into()),
        connection: ConnectionDetails {
            upstream_host: "10.0.0.7:9080".parse().ok(),
            upstream_cluster: Some(outbound_cluster(9080, Some("v1"), "reviews.default.svc.cluster.local")),
            upstream_local: None,
            downstream_local: "10.96.0.1:9080".parse().ok(),
            downstream_remote: "10.0.0.3:40000".parse().ok(),
            server_name: None,
        },
        ..RequestDetails::default()
    }));
    record
}
