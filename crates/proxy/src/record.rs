//! One record for each request, closed when its response's body ends: the only place that turns outcomes into metrics, spans
//! and log lines.
//!
//! Invariant: every request that reached a pipeline is recorded exactly once, also when its client goes away: a record
//! that is dropped open is closed as "the client closed the connection".
//! Must not know: routes, policies, endpoints; steps hand it facts.

use std::{
    borrow::Cow,
    cell::Cell,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use leno_telemetry::{
    ConnectionSecurity, PeerMeta, Reporter, RequestDetails, RequestProtocol, RequestRecord, ResponseFlags,
    ServiceMeta, SpanContext, Step, TraceParent, overhead,
};
use tokio::time::Instant;

use crate::{
    core::Core,
    forward::guarded::holding,
    http::{Body, BodyError, BodyStream, hop},
    preface,
    shared::Busy,
    turn::{self, Meter, Turn},
};

/// A record that is not closed yet.
pub(crate) struct OpenRecord {
    core: Rc<Core>,
    record: Option<Box<RequestRecord>>,
    started: Instant,
    step_began: Instant,
    received: Rc<Counted>,
    /// In flight until the body, or the tunnel, has ended: that is what a drain waits for.
    _busy: Busy,
    /// On a hop: what the peer was told that this cost, in nanoseconds, and where the rest goes.
    announced: Option<(u64, Rc<Cell<u64>>)>,
}

/// What passes through a body.
#[derive(Default)]
struct Counted {
    bytes: Cell<u64>,
    messages: Cell<u64>,
    grpc: Cell<bool>,
    frame: Cell<GrpcFrame>,
}

/// Where in gRPC's length-prefixed messages a body is.
#[derive(Clone, Copy, Default)]
struct GrpcFrame {
    prefix: u8,
    length: u32,
    left: u32,
}

/// Who is on a request's ends.
pub(crate) struct Ends {
    pub(crate) reporter: Reporter,
    pub(crate) source: Arc<PeerMeta>,
    pub(crate) destination: Arc<PeerMeta>,
    pub(crate) service: Arc<ServiceMeta>,
    pub(crate) security: ConnectionSecurity,
}

impl OpenRecord {
    /// Opens a record as a request's head arrives.
    pub(crate) fn open(core: &Rc<Core>, ends: Ends, request: &Request<Body>) -> Self {
        let turn = turn::take();
        let Ends { reporter, source, destination, service, security } = ends;
        let start = SystemTime::now().checked_sub(turn.woken.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut record = RequestRecord::new(reporter, source, destination, service, start);
        record.security = security;
        record.overhead.add(Step::Queue, turn.queued());
        let grpc = is_grpc(request.headers());
        if grpc {
            record.protocol = RequestProtocol::Grpc;
        }
        if core.shared.telemetry.wants_details() {
            record.details = Some(Box::new(details(request)));
        }
        let received = Counted::default();
        received.grpc.set(grpc);
        Self {
            core: core.clone(),
            record: Some(Box::new(record)),
            started: turn.woken,
            step_began: turn.began,
            received: Rc::new(received),
            _busy: Busy::new(&core.shared),
            announced: None,
        }
    }

    /// The facts, to add to.
    pub(crate) fn facts(&mut self) -> &mut RequestRecord {
        self.record.get_or_insert_with(|| {
            // Only `close` takes the record, and it takes `self` with it.
            Box::new(RequestRecord::new(
                Reporter::Source,
                PeerMeta::unknown(),
                PeerMeta::unknown(),
                ServiceMeta::unknown(),
                SystemTime::UNIX_EPOCH,
            ))
        })
    }

    /// Details, when somebody reads them.
    pub(crate) fn details(&mut self) -> Option<&mut RequestDetails> {
        self.facts().details.as_deref_mut()
    }

    /// Our end of the connection that the answer came on.
    pub(crate) fn upstream_local(&mut self, local: Option<SocketAddr>) {
        if let Some(details) = self.details() {
            details.connection.upstream_local = local;
        }
    }

    /// The client's connection.
    pub(crate) fn came_by(&mut self, remote: SocketAddr, local: SocketAddr, sni: Option<&Arc<str>>) {
        if let Some(details) = self.details() {
            details.connection.downstream_remote = Some(remote);
            details.connection.downstream_local = Some(local);
            details.connection.server_name = sni.cloned();
        }
    }

    /// What a step cost, from the end of the one before.
    pub(crate) fn step(&mut self, step: Step) {
        let now = Instant::now();
        let nanos = turn::nanos(self.step_began, now);
        let tls = turn::take_tls().min(nanos);
        self.step_began = now;
        let overhead = &mut self.facts().overhead;
        overhead.add(Step::Tls, tls);
        overhead.add(step, nanos - tls);
    }

    /// What passed since the last step was an exchange with another server; this proxy's part of it is what was measured.
    pub(crate) fn exchanged(&mut self, meter: &Meter) {
        let overhead = &mut self.facts().overhead;
        overhead.add(Step::Queue, meter.queue.get());
        overhead.add(Step::Write, meter.write.get());
        overhead.add(Step::Parse, meter.read.get());
        overhead.add(Step::Tls, meter.tls.get());
        self.waited();
    }

    /// The same, for an exchange that ended by itself.
    pub(crate) fn answered(&mut self, meter: &Meter) {
        let since = self.step_began;
        if let Some(details) = self.details() {
            details.upstream_service_time = u64::try_from(since.elapsed().as_millis()).ok();
        }
        self.exchanged(meter);
    }

    /// What the peer is told that this hop added, in microseconds. What follows, writing the response, is known too late for
    /// this message: it is `owed`, and goes with the connection's next one.
    pub(crate) fn announce(&mut self, owed: &Rc<Cell<u64>>) -> u64 {
        self.step(Step::Write);
        let total = self.facts().overhead.total();
        let mut sum = self.facts().overhead;
        sum.add(Step::Write, owed.take());
        self.announced = Some((total, Rc::clone(owed)));
        sum.header_value()
    }

    /// What passed since the last step was waiting, and not this proxy's work.
    pub(crate) fn waited(&mut self) {
        turn::take_tls();
        self.step_began = Instant::now();
    }

    /// Sets how it ended, when it was not the upstream that answered.
    pub(crate) fn outcome(&mut self, flags: ResponseFlags, details_code: impl Into<Cow<'static, str>>) {
        let facts = self.facts();
        facts.flags = facts.flags.with(flags);
        facts.details_code = details_code.into();
    }

    /// Begins or continues the request's trace and gives the next hop its context (W3C Trace Context).
    pub(crate) fn trace(&mut self, headers: &mut HeaderMap) {
        let sampling = self.core.shared.bootstrap.tracing.as_ref().map_or(0.0, |tracing| tracing.sampling);
        let parent = headers.get("traceparent").and_then(|value| TraceParent::parse(value.as_bytes()));
        if parent.is_none() {
            headers.remove("tracestate");
            if sampling <= 0.0 {
                headers.remove("traceparent");
                return;
            }
        }
        let context = SpanContext::begin(parent, sampling, self.core.random_bytes());
        if let Ok(value) = context.traceparent().try_into() {
            headers.insert("traceparent", value);
        }
        self.facts().trace = Some(context);
    }

    /// Counts what a request's body carries.
    pub(crate) fn count_request(&self, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        if let Some(bytes) = body.as_full() {
            self.received.take(&bytes);
            return body;
        }
        Body::boxed(CountedBody { inner: body, counted: self.received.clone() })
    }

    /// Hands the record over to a response's body; it is closed when that ends.
    pub(crate) fn close_with(mut self, response: Response<Body>) -> Response<Body> {
        self.step(Step::Write);
        let (parts, body) = response.into_parts();
        let facts = self.facts();
        facts.response_code = parts.status.as_u16();
        facts.grpc_status = grpc_status(&parts.headers);
        facts.peer_overhead = facts.peer_overhead.or_else(|| {
            let value = parts.headers.get(preface::OVERHEAD)?;
            overhead::parse_header_value(value.as_bytes())
        });
        let sent = Counted::default();
        sent.grpc.set(self.received.grpc.get());
        if body.is_upgraded() {
            self.close(&sent);
            let busy = Busy::new(&self.core.shared);
            return Response::from_parts(parts, holding(body, busy));
        }
        let whole = body.as_full();
        if let Some(bytes) = &whole {
            sent.take(bytes);
        }
        let (ended, turn) = (whole.is_some(), turn::current());
        let recorded = RecordedBody { inner: body, sent, whole: ended, ended, turn, open: Some(self) };
        Response::from_parts(parts, Body::boxed(recorded))
    }

    fn disconnected(&mut self) {
        self.outcome(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect");
    }

    fn close(&mut self, sent: &Counted) {
        let Some(mut record) = self.record.take() else { return };
        record.duration = self.started.elapsed();
        record.bytes_received = self.received.bytes.get();
        record.request_messages = self.received.messages.get();
        record.bytes_sent = sent.bytes.get();
        record.response_messages = sent.messages.get();
        if let Some((announced, owed)) = &self.announced {
            owed.set(owed.get().saturating_add(record.overhead.total().saturating_sub(*announced)));
        }
        self.core.shard.request(*record);
    }
}

impl Drop for OpenRecord {
    /// A handler that is dropped lost its client; there is no other place that could see it.
    fn drop(&mut self) {
        if self.record.is_some() {
            self.disconnected();
            self.close(&Counted::default());
        }
    }
}

/// A response's body. Its connection drops it once it is written, which is when the record is closed.
struct RecordedBody {
    inner: Body,
    sent: Counted,
    /// All its bytes were there from the beginning, and are counted.
    whole: bool,
    ended: bool,
    /// The turn in which the head is passed on. What is written in it counts as overhead; what streams later has no one latency.
    turn: Turn,
    open: Option<OpenRecord>,
}

impl RecordedBody {
    fn end(&mut self, error: Option<&BodyError>) {
        self.ended = true;
        let Some(open) = self.open.as_mut() else { return };
        if let Some(error) = error {
            let (flag, code) = match error {
                BodyError::Timeout => (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
                BodyError::Refused(_) => (ResponseFlags::LOCAL_RESET, "rbac_access_denied"),
                BodyError::Malformed(_) => {
                    (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "upstream_protocol_error")
                }
                _ => {
                    (ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, "upstream_reset_after_response_started")
                }
            };
            open.outcome(flag, code);
        }
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        if self.turn.is(&turn::current()) {
            open.step(Step::Write);
        }
        if !self.ended && !http_body::Body::is_end_stream(&self.inner) {
            open.disconnected();
        }
        open.close(&self.sent);
    }
}

impl BodyStream for RecordedBody {
    fn poll_progress(mut self: Pin<&mut Self>, cx: &mut Context<'_>) {
        self.inner.poll_progress(cx);
    }
}

impl http_body::Body for RecordedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if !this.whole {
                        this.sent.take(data);
                    }
                } else if let (Some(trailers), Some(open)) = (frame.trailers_ref(), &mut this.open) {
                    let status = grpc_status(trailers);
                    let facts = open.facts();
                    facts.grpc_status = status.or(facts.grpc_status);
                }
                if this.inner.is_end_stream() {
                    this.end(None);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                let error = error.clone();
                this.end(Some(&error));
            }
            Poll::Ready(None) => this.end(None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

struct CountedBody {
    inner: Body,
    counted: Rc<Counted>,
}

impl BodyStream for CountedBody {
    fn poll_progress(mut self: Pin<&mut Self>, cx: &mut Context<'_>) {
        self.inner.poll_progress(cx);
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.counted.take(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Counted {
    fn take(&self, data: &[u8]) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        if self.grpc.get() {
            let mut frame = self.frame.get();
            self.messages.set(self.messages.get() + frame.advance(data));
            self.frame.set(frame);
        }
    }
}

impl GrpcFrame {
    /// Follows the data and returns how many messages ended in it (gRPC over HTTP/2: Length-Prefixed-Message).
    fn advance(&mut self, mut data: &[u8]) -> u64 {
        let mut ended = 0;
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let step = data.len().min(self.left as usize);
                self.left -= step as u32;
                data = &data[step..];
                ended += u64::from(self.left == 0);
                continue;
            }
            if self.prefix > 0 {
                self.length = (self.length << 8) | u32::from(*first);
            }
            self.prefix += 1;
            data = rest;
            if self.prefix == 5 {
                self.left = self.length;
                ended += u64::from(self.left == 0);
                (self.prefix, self.length) = (0, 0);
            }
        }
        ended
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn details(request: &Request<Body>) -> RequestDetails {
    let header = |name: &str| -> Option<Box<str>> {
        request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into())
    };
    RequestDetails {
        method: request.method().as_str().into(),
        path: request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str).into(),
        version: match request.version() {
            http::Version::HTTP_10 => Some(leno_telemetry::HttpVersion::Http10),
            http::Version::HTTP_11 => Some(leno_telemetry::HttpVersion::Http11),
            http::Version::HTTP_2 => Some(leno_telemetry::HttpVersion::Http2),
            _ => None,
        },
        authority: hop::authority(request.headers()).map(Into::into),
        user_agent: header("user-agent"),
        request_id: header("x-request-id"),
        forwarded_for: header("x-forwarded-for"),
        ..RequestDetails::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for size in [0_u32, 5, 1, 300] {
            bytes.push(0);
            bytes.extend(size.to_be_bytes());
            bytes.extend(vec![7; size as usize]);
        }
        for cut in 1..bytes.len() {
            let mut frame = GrpcFrame::default();
            let counted: u64 = bytes.chunks(cut).map(|chunk| frame.advance(chunk)).sum();
            assert_eq!(counted, 4, "chunks of {cut}");
        }
    }
}
