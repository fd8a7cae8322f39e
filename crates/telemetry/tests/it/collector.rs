//! Export of spans to a real collector of the same protocol in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use leno_telemetry::{
    OtlpConfig, Reporter, RequestDetails, RequestRecord, SpanContext, Spans, Telemetry, TelemetryConfig,
    TraceParent,
    proto::{
        collector::trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
        common::v1::{KeyValue, any_value::Value},
        trace::v1::{span::SpanKind, status::StatusCode},
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::request;

#[tokio::test]
async fn spans_arrive_with_ids_kinds_and_attributes_although_the_collector_was_away() {
    let (endpoint, mut received) = collector(Answers { unavailable: 1, rejected: 0 }).await;
    let (spans, exporter) = Spans::exporter(config(endpoint)).unwrap();
    let telemetry = Telemetry::new(TelemetryConfig { spans: Some(spans), ..TelemetryConfig::default() });
    assert!(telemetry.wants_details());
    let running = tokio::spawn(exporter.run(std::future::pending()));
    telemetry.shard().request(traced(Reporter::Source, 503, true));
    telemetry.shard().request(traced(Reporter::Destination, 404, true));
    telemetry.shard().request(traced(Reporter::Source, 200, false));

    let batch = received.recv().await.unwrap();
    let resource = batch.resource_spans[0].resource.clone().unwrap();
    assert_eq!(text(&resource.attributes, "service.name"), "productpage.default");
    let spans = &batch.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 2, "an unsampled request makes no span");
    let client = &spans[0];
    assert_eq!(client.trace_id.as_ref(), [0x4b; 16]);
    assert_eq!(client.parent_span_id.as_ref(), [0x22; 8]);
    assert_eq!(client.kind, i32::from(SpanKind::Client));
    assert_eq!(client.name, "GET reviews");
    assert_eq!(client.end_time_unix_nano - client.start_time_unix_nano, 12_500_000);
    assert_eq!(client.status.clone().unwrap().code, i32::from(StatusCode::Error));
    assert_eq!(text(&client.attributes, "url.path"), "/reviews/0");
    assert_eq!(text(&client.attributes, "error.type"), "503");
    assert_eq!(text(&client.attributes, "istio.canonical_service"), "productpage");
    assert_eq!(text(&client.attributes, "istio.mesh_id"), "mesh1");
    assert_eq!(text(&client.attributes, "istio.cluster_id"), "east");
    let server = &spans[1];
    assert_eq!(server.kind, i32::from(SpanKind::Server));
    assert_eq!(server.status.clone().unwrap().code, i32::from(StatusCode::Unset));
    assert_eq!(text(&server.attributes, "istio.canonical_service"), "reviews");

    drop(telemetry);
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_queued_at_the_shutdown_is_sent_and_counted() {
    let (endpoint, mut received) = collector(Answers { unavailable: 0, rejected: 1 }).await;
    let (spans, exporter) = Spans::exporter(OtlpConfig { queue: 3, ..config(endpoint) }).unwrap();
    let telemetry = Telemetry::new(TelemetryConfig { spans: Some(spans), ..TelemetryConfig::default() });
    let shard = telemetry.shard();
    for _ in 0..5 {
        shard.request(traced(Reporter::Source, 200, true));
    }
    exporter.run(std::future::ready(())).await;
    assert_eq!(received.recv().await.unwrap().resource_spans[0].scope_spans[0].spans.len(), 3);
    let page = telemetry.render();
    assert!(page.contains("leno_spans_exported_total 2\n"), "{page}");
    assert!(page.contains("leno_spans_dropped_total{reason=\"queue\"} 2\n"));
    assert!(page.contains("leno_spans_dropped_total{reason=\"refused\"} 1\n"));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (spans, exporter) = Spans::exporter(OtlpConfig { batch: 2, ..config(endpoint) }).unwrap();
    let telemetry = Telemetry::new(TelemetryConfig { spans: Some(spans), ..TelemetryConfig::default() });
    let shard = telemetry.shard();
    for _ in 0..5 {
        shard.request(traced(Reporter::Source, 200, true));
    }
    exporter.run(std::future::ready(())).await;
    assert!(telemetry.render().contains("leno_spans_dropped_total{reason=\"collector\"} 5\n"));
}

#[test]
fn an_endpoint_that_is_no_url_is_refused() {
    let error = Spans::exporter(OtlpConfig::new("not a url", "x")).unwrap_err();
    assert!(error.to_string().starts_with("not a url is not the URL of a collector"), "{error}");
}

fn config(endpoint: String) -> OtlpConfig {
    OtlpConfig {
        mesh_id: "mesh1".to_owned(),
        flush_after: Duration::from_millis(20),
        ..OtlpConfig::new(endpoint, "productpage.default")
    }
}

fn traced(reporter: Reporter, code: u16, sampled: bool) -> RequestRecord {
    let flags = if sampled { "01" } else { "00" };
    let parent = format!("00-{}-{}-{flags}", "4b".repeat(16), "22".repeat(8));
    let mut record = request();
    record.reporter = reporter;
    record.response_code = code;
    record.trace = Some(SpanContext::begin(TraceParent::parse(parent.as_bytes()), 1.0, [7; 32]));
    record.details = Some(Box::new(RequestDetails {
        method: "GET".into(),
        path: "/reviews/0?token=secret".into(),
        route_name: Some("reviews".into()),
        ..RequestDetails::default()
    }));
    record
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?} in {attributes:?}"),
    }
}

struct Answers {
    /// Requests refused as unavailable before the first is taken.
    unavailable: u32,
    /// Spans rejected of each batch.
    rejected: i64,
}

struct Collector {
    answers: Answers,
    seen: AtomicU32,
    received: mpsc::Sender<ExportTraceServiceRequest>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.answers.unavailable {
            return Err(Status::unavailable("starting"));
        }
        self.received.send(request.into_inner()).await.unwrap();
        let partial =
            ExportTracePartialSuccess { rejected_spans: self.answers.rejected, ..Default::default() };
        Ok(Response::new(ExportTraceServiceResponse { partial_success: Some(partial) }))
    }
}

async fn collector(answers: Answers) -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel(8);
    let collector = Collector { answers, seen: AtomicU32::new(0), received: sender };
    let service = TraceServiceServer::from_arc(Arc::new(collector));
    tokio::spawn(
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (endpoint, receiver)
}
