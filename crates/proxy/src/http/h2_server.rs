//! The server's side of an HTTP/2 connection.
//!
//! Invariants: each stream is one task, owned by its connection and ended with it; a stream that the client resets drops
//! its handler; a drain is GOAWAY in two steps, so that no request is lost in the race.
//!
//! Must not know: who handles requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{Method, Request, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::body::{Body, Io};
use super::drain::Drain;
use super::h2_body::{H2Body, H2Upload};
use super::h2_client::Pulse;
use super::hop;
use super::settings::{ConnEnd, EndReason, ServerSettings};
use super::timer::{Pace, Timer};
use crate::turn;

/// Serves HTTP/2 on `io` until the connection ends. Needs a `LocalSet` or `LocalRuntime`: each stream is a local task.
pub async fn serve_h2<IO, H>(
    io: IO,
    settings: Rc<ServerSettings>,
    handler: Rc<H>,
    mut drain: Drain,
) -> ConnEnd
where
    IO: Io,
    H: AsyncFn(Request<Body>) -> Response<Body> + 'static,
{
    let handshake = h2::server::Builder::new()
        .initial_window_size(settings.h2_stream_window)
        .initial_connection_window_size(settings.h2_connection_window)
        .max_concurrent_streams(settings.h2_max_streams)
        .max_header_list_size(u32::try_from(settings.head.max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(settings.h2_send_buffer)
        .max_pending_accept_reset_streams(settings.h2_max_pending_resets)
        .max_local_error_reset_streams(Some(4096))
        .handshake::<_, Bytes>(io);
    let mut connection = match timeout(settings.first_request_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return ConnEnd::new(EndReason::Protocol),
        Err(_) => return ConnEnd::new(EndReason::Idle),
    };
    let mut life = Life {
        pulse: Pulse::new(settings.h2_ping, connection.ping_pong()),
        idle: Timer::default(),
        ending: None,
        tasks: JoinSet::new(),
    };
    let mut end = ConnEnd::new(EndReason::ClientClosed);
    let cancelled = Rc::new(Cancelled::default());
    loop {
        match poll_fn(|cx| life.poll_next(cx, &mut connection, &mut drain, &settings)).await {
            Step::Stream(request, respond) => {
                end.requests += 1;
                if cancelled.are_abuse(settings.h2_max_early_resets, end.requests) {
                    end.reason = EndReason::Protocol;
                    break;
                }
                let stream = Stream { settings: Rc::clone(&settings), cancelled: Rc::clone(&cancelled) };
                let handler = Rc::clone(&handler);
                let serve = async move { stream.serve(*request, respond, &*handler).await };
                // The stream's time began as its head was read, in this turn of the connection.
                life.tasks.spawn_local(turn::in_turns(Some(turn::take()), serve));
                if settings.max_requests.is_some_and(|max| end.requests >= max) {
                    life.end(&mut connection, EndReason::Finished);
                }
            }
            Step::End(reason) => {
                end.reason = reason;
                break;
            }
        }
    }
    drop(connection);
    life.tasks.shutdown().await;
    end.cancelled = cancelled.all.get();
    end
}

enum Step {
    Stream(Box<Request<RecvStream>>, SendResponse<Bytes>),
    End(EndReason),
}

struct Life {
    pulse: Pulse,
    idle: Timer,
    ending: Option<EndReason>,
    tasks: JoinSet<()>,
}

impl Life {
    fn poll_next<IO: Io>(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection<IO, Bytes>,
        drain: &mut Drain,
        settings: &ServerSettings,
    ) -> Poll<Step> {
        if self.ending.is_none() && drain.poll_started(cx).is_ready() {
            self.end(connection, EndReason::Drained);
        }
        if self.pulse.poll_dead(cx).is_ready() {
            return Poll::Ready(Step::End(EndReason::Timeout));
        }
        while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {}
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                self.idle.clear();
                return Poll::Ready(Step::Stream(Box::new(request), respond));
            }
            Poll::Ready(None) => {
                return Poll::Ready(Step::End(self.ending.unwrap_or(EndReason::ClientClosed)));
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = if error.is_io() { EndReason::Disconnected } else { EndReason::Protocol };
                return Poll::Ready(Step::End(self.ending.unwrap_or(reason)));
            }
            Poll::Pending => {}
        }
        if self.tasks.is_empty() {
            if !self.idle.is_set() {
                self.idle.set(settings.keep_alive);
            }
            if self.idle.poll(cx).is_ready() {
                if self.ending.is_some() {
                    return Poll::Ready(Step::End(EndReason::Idle));
                }
                self.end(connection, EndReason::Idle);
                // A client that does not answer the GOAWAY is given no second hour.
                self.idle.set(settings.linger);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn end<IO: Io>(&mut self, connection: &mut Connection<IO, Bytes>, reason: EndReason) {
        self.ending.get_or_insert(reason);
        connection.graceful_shutdown();
    }
}

struct Stream {
    settings: Rc<ServerSettings>,
    cancelled: Rc<Cancelled>,
}

/// A stream that is taken back sooner than this was hardly meant.
const EARLY: Duration = Duration::from_secs(1);

/// Handlers that were dropped before they answered.
#[derive(Default)]
struct Cancelled {
    all: Cell<u64>,
    early: Cell<u64>,
}

impl Cancelled {
    fn are_abuse(&self, most: Option<u64>, requests: u64) -> bool {
        let early = self.early.get();
        most.is_some_and(|most| early >= most && early.saturating_mul(2) > requests)
    }
}

/// Counts a handler that was dropped before it answered.
struct CountIfCancelled<'a> {
    cancelled: &'a Cancelled,
    began: Instant,
    answered: bool,
}

impl Drop for CountIfCancelled<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.cancelled.all.set(self.cancelled.all.get() + 1);
        if self.began.elapsed() < EARLY {
            self.cancelled.early.set(self.cancelled.early.get() + 1);
        }
    }
}

impl Stream {
    async fn serve<H>(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>, handler: &H)
    where
        H: AsyncFn(Request<Body>) -> Response<Body>,
    {
        let (parts, recv) = request.into_parts();
        let parts = match hop::request_from_h2(parts, &self.settings.head) {
            Ok(parts) => parts,
            Err(error) => {
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
                let _ = respond.send_response(status_only(status), true);
                return;
            }
        };
        let is_head = parts.method == Method::HEAD;
        if parts.headers.contains_key(EXPECT) && !recv.is_end_stream() {
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            let _ = respond.send_informational(go_on);
        }
        let pace = Pace { window: self.settings.body_idle, least: self.settings.min_progress };
        let body = if recv.is_end_stream() {
            Body::empty()
        } else {
            let length =
                parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            Body::h2(H2Body::new(recv, length, pace))
        };
        let response = {
            let mut count =
                CountIfCancelled { cancelled: &self.cancelled, began: Instant::now(), answered: false };
            let mut handling = std::pin::pin!(handler(Request::from_parts(parts, body)));
            let response = poll_fn(|cx| {
                if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                    return Poll::Ready(Some(response));
                }
                respond.poll_reset(cx).map(|_| None)
            });
            let Some(response) = response.await else { return };
            count.answered = true;
            response
        };
        let (mut parts, body) = response.into_parts();
        hop::strip_hop_by_hop(&mut parts.headers);
        if parts.status.is_informational() || body.is_upgraded() {
            let _ = respond.send_response(status_only(StatusCode::BAD_GATEWAY), true);
            return;
        }
        if parts.status == StatusCode::NO_CONTENT {
            // RFC 9110 8.6.
            parts.headers.remove(CONTENT_LENGTH);
        }
        let without_body = is_head
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || body.has_ended();
        if (is_head || !without_body)
            && let (Some(n @ 1..), false) =
                (http_body::Body::size_hint(&body).exact(), parts.headers.contains_key(CONTENT_LENGTH))
        {
            parts.headers.insert(CONTENT_LENGTH, n.into());
        }
        if let Ok(stream) = respond.send_response(Response::from_parts(parts, ()), without_body)
            && !without_body
        {
            let mut upload = H2Upload::new(stream, body, pace);
            // Its failure has reset the stream; there is nobody else to tell.
            let _ = poll_fn(|cx| upload.poll(cx)).await;
        }
    }
}

fn status_only(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}
