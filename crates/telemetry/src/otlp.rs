//! Exports spans by OTLP over gRPC.
//!
//! Invariant: the data path only puts a pointer into a bounded queue; what the collector does not take in time is
//! dropped and counted, by reason. [`SpanExporter::run`] is a future that the caller spawns and ends.
//! Must not know: sampling. What arrives and is sampled is sent.

mod reach;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    metrics::Counter,
    proto::{
        collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
        common::v1::{InstrumentationScope, KeyValue},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    },
    record::RequestRecord,
    span::{self, text_attribute},
};
use reach::Reach;

/// The first wait before a batch is sent again; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// The longest wait before a batch is sent again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Where spans go, and how.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// The collector, `http://HOST:4317`. Plaintext: a collector is called through the mesh or on the same machine.
    pub endpoint: String,
    /// `service.name` of the resource (Istio: `CANONICAL_SERVICE.NAMESPACE`).
    pub service_name: String,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
    /// The value of `istio.mesh_id`.
    pub mesh_id: String,
    /// Most records waiting to be sent.
    pub queue: usize,
    /// Most spans sent at once.
    pub batch: usize,
    /// The longest wait until a batch is full.
    pub flush_after: Duration,
    /// The deadline of one attempt.
    pub timeout: Duration,
    /// Attempts for one batch.
    pub attempts: u32,
}

impl OtlpConfig {
    /// The usual numbers for a collector.
    pub fn new(endpoint: impl Into<String>, service_name: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            service_name: service_name.into(),
            resource: Vec::new(),
            mesh_id: String::new(),
            queue: 4_096,
            batch: 512,
            flush_after: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            attempts: 5,
        }
    }
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint} is not the URL of a collector, such as http://collector:4317")]
pub struct OtlpError {
    /// What was configured.
    pub endpoint: String,
    /// Why it is not.
    #[source]
    pub source: tonic::transport::Error,
}

/// What happened to spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanCounters {
    pub(crate) exported: Counter,
    /// The queue was full.
    pub(crate) dropped_queue: Counter,
    /// The collector could not be reached, or had no room, for all attempts.
    pub(crate) dropped_collector: Counter,
    /// The collector refused them for good.
    pub(crate) dropped_refused: Counter,
}

/// The data path's end.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Arc<RequestRecord>>,
    counters: SpanCounters,
}

/// The other end: makes spans and sends them.
#[derive(Debug)]
pub struct SpanExporter {
    queue: mpsc::Receiver<Arc<RequestRecord>>,
    counters: SpanCounters,
    endpoint: Endpoint,
    resource: Vec<KeyValue>,
    reach: Reach,
    config: OtlpConfig,
}

impl Spans {
    /// Makes both ends. Nothing is dialled before [`SpanExporter::run`].
    ///
    /// # Errors
    /// When the endpoint is not a URL.
    pub fn exporter(config: OtlpConfig) -> Result<(Self, SpanExporter), OtlpError> {
        let endpoint = match Endpoint::from_shared(config.endpoint.clone()) {
            Ok(endpoint) => endpoint.connect_timeout(config.timeout),
            Err(source) => return Err(OtlpError { endpoint: config.endpoint, source }),
        };
        let mut resource = vec![text_attribute("service.name", &config.service_name)];
        resource.extend(config.resource.iter().map(|(key, value)| text_attribute(key, value)));
        let (sender, receiver) = mpsc::channel(config.queue.max(1));
        let counters = SpanCounters::default();
        let spans = Self { queue: sender, counters: counters.clone() };
        let reach = Reach::of(&config.endpoint);
        Ok((spans, SpanExporter { queue: receiver, counters, endpoint, resource, reach, config }))
    }

    pub(crate) fn counters(&self) -> &SpanCounters {
        &self.counters
    }

    /// Takes a record whose trace is sampled.
    pub(crate) fn offer(&self, record: Arc<RequestRecord>) {
        if self.queue.try_send(record).is_err() {
            self.counters.dropped_queue.add(1);
        }
    }
}

impl SpanExporter {
    /// Sends spans until `shutdown` resolves or nobody can offer any more; then what is left, each batch once.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut client = TraceServiceClient::new(self.endpoint.connect_lazy());
        let mut records = Vec::new();
        loop {
            let is_last = tokio::select! {
                biased;
                () = &mut shutdown => true,
                is_over = gather(&mut self.queue, &mut records, &self.config) => is_over,
            };
            // A batch that is given up for the shutdown is sent once more below, so a collector may see it twice: that
            // is better than not at all.
            let is_sent = !is_last
                && tokio::select! {
                    () = self.export(&mut client, &records, self.config.attempts.max(1)) => true,
                    () = &mut shutdown => false,
                };
            if !is_sent {
                return self.drain(&mut client, records).await;
            }
            records.clear();
        }
    }

    /// Sends what is left, each batch once; the first that is not taken ends it, so that a collector that is away
    /// delays a shutdown by one timeout at most.
    async fn drain(mut self, client: &mut TraceServiceClient<Channel>, mut records: Vec<Arc<RequestRecord>>) {
        self.queue.close();
        while let Ok(record) = self.queue.try_recv() {
            records.push(record);
        }
        let mut batches = records.chunks(self.config.batch.max(1));
        for batch in batches.by_ref() {
            let before = self.counters.dropped_collector.value();
            self.export(client, batch, 1).await;
            if self.counters.dropped_collector.value() > before {
                break;
            }
        }
        self.counters.dropped_collector.add(batches.map(|batch| batch.len() as u64).sum());
    }

    async fn export(
        &self,
        client: &mut TraceServiceClient<Channel>,
        records: &[Arc<RequestRecord>],
        attempts: u32,
    ) {
        let spans: Vec<Span> =
            records.iter().filter_map(|record| span::of(record, &self.config.mesh_id)).collect();
        let count = spans.len() as u64;
        if count == 0 {
            return;
        }
        let request = self.request(spans);
        let (since, mut backoff) = (Instant::now(), FIRST_BACKOFF);
        for attempt in 1..=attempts {
            match self.attempt(client, request.clone()).await {
                Ok(rejected) => {
                    self.counters.dropped_refused.add(rejected.min(count));
                    self.counters.exported.add(count.saturating_sub(rejected));
                    return self.reach.took();
                }
                Err(status) if !is_retryable(status.code()) => {
                    self.counters.dropped_refused.add(count);
                    return self
                        .reach
                        .failed(since, &format!("refused: {:?}: {}", status.code(), status.message()));
                }
                Err(_) if attempt < attempts => {
                    // Jitter, so that a fleet does not return to a collector in step.
                    sleep(backoff.mul_f64(rand::random_range(0.5..1.5))).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
                Err(status) => {
                    self.reach.failed(since, &format!("{:?}: {}", status.code(), status.message()));
                }
            }
        }
        self.counters.dropped_collector.add(count);
    }

    /// One attempt; how many spans the collector rejected of those it took.
    async fn attempt(
        &self,
        client: &mut TraceServiceClient<Channel>,
        request: ExportTraceServiceRequest,
    ) -> Result<u64, Status> {
        let deadline = Instant::now() + self.config.timeout;
        let answer = timeout_at(deadline, client.export(request))
            .await
            .map_err(|_| Status::deadline_exceeded("the collector did not answer in time"))??;
        let partial = answer.into_inner().partial_success;
        Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope =
            InstrumentationScope { name: "leno".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let spans = ScopeSpans { scope: Some(scope), spans, schema_url: String::new() };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: self.resource.clone() }),
                scope_spans: vec![spans],
                schema_url: String::new(),
            }],
        }
    }
}

/// Fills a batch: until it is full, or the flush time after its first record. True when nobody can offer any more.
///
/// Invariant: cancelled, it loses nothing, for what was received is in `records`.
async fn gather(
    queue: &mut mpsc::Receiver<Arc<RequestRecord>>,
    records: &mut Vec<Arc<RequestRecord>>,
    config: &OtlpConfig,
) -> bool {
    let batch = config.batch.max(1);
    if queue.recv_many(records, batch).await == 0 {
        return true;
    }
    let deadline = Instant::now() + config.flush_after;
    while records.len() < batch {
        let room = batch - records.len();
        match timeout_at(deadline, queue.recv_many(records, room)).await {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// The codes that OTLP says may be tried again ("Failures" of its specification).
fn is_retryable(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}
