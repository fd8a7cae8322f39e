//! The server's side of an HTTP/1.1 connection: one exchange after the other.
//!
//! Invariants: the handler runs while the request's body is read, by the same task; a connection goes on only when both
//! messages of an exchange ended where they said; a client that goes away drops the handler.
//!
//! Must not know: who handles requests.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame};

use super::decode::Decoder;
use super::encode::{ConnectionField, Encoder, SendFraming, response_head};
use super::parse::{RequestHead, parse_length};
use super::reading::{Next, State, Waiting};
use super::scan::{HeadError, Scanner};
use crate::http::body::{Body, BodyError, H1Body, H1Source, Io, Upgraded};
use crate::http::drain::Drain;
use crate::http::settings::{ConnEnd, EndReason, ServerSettings};
use crate::http::tunnel;

/// Serves HTTP/1.1 (and 1.0) on `io` until the connection ends. `handler` answers one request at a time; dropping its
/// future means that the client has gone.
pub async fn serve_h1<IO, H>(io: IO, settings: Rc<ServerSettings>, handler: Rc<H>, drain: Drain) -> ConnEnd
where
    IO: Io,
    H: AsyncFn(Request<Body>) -> Response<Body>,
{
    serve_h1_from(io, BytesMut::new(), settings, handler, drain).await
}

/// As [`serve_h1`], when some bytes were read already.
pub(in crate::http) async fn serve_h1_from<IO, H>(
    io: IO,
    read_ahead: BytesMut,
    settings: Rc<ServerSettings>,
    handler: Rc<H>,
    mut drain: Drain,
) -> ConnEnd
where
    IO: Io,
    H: AsyncFn(Request<Body>) -> Response<Body>,
{
    let conn = Rc::new(ServerConn::new(io, read_ahead, settings));
    let mut end = ConnEnd::new(EndReason::Finished);
    loop {
        match conn.next_request(&mut drain, end.requests).await {
            Next::Request(head) => {
                end.requests += 1;
                // Boxed, so that an idle connection does not hold room for the handler's state.
                let exchange = Box::pin(conn.exchange(*head, &*handler, &mut drain, end.requests));
                match exchange.await {
                    After::KeepAlive => {}
                    After::Close { reason, linger } => {
                        end.cancelled += u64::from(reason == EndReason::Disconnected);
                        end.reason = reason;
                        conn.close(linger).await;
                        return end;
                    }
                    After::Tunnel(upgraded) => {
                        end.reason = EndReason::Tunnel;
                        end.tunnelled = conn.tunnel(upgraded, drain).await;
                        return end;
                    }
                }
            }
            Next::Reject(error) => {
                end.reason = EndReason::Rejected(error);
                conn.reject(error).await;
                return end;
            }
            Next::End(reason) => {
                end.reason = reason;
                conn.close(false).await;
                return end;
            }
        }
    }
}

enum After {
    KeepAlive,
    Close { reason: EndReason, linger: bool },
    Tunnel(Upgraded),
}

/// An exchange that cannot go on.
fn broken(reason: EndReason) -> After {
    After::Close { reason, linger: false }
}

struct ServerConn<IO> {
    state: RefCell<State<IO>>,
    settings: Rc<ServerSettings>,
}

/// What the response's framing depends on.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
    upgrade: bool,
}

impl<IO: Io> ServerConn<IO> {
    fn new(io: IO, read_ahead: BytesMut, settings: Rc<ServerSettings>) -> Self {
        let state = State::new(io, read_ahead, &settings);
        ServerConn { state: RefCell::new(state), settings }
    }

    async fn next_request(&self, drain: &mut Drain, served: u64) -> Next {
        let mut scanner = Scanner::default();
        let mut waiting = Waiting::new(served, &self.state.borrow().pipe.input);
        poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            state.poll_head(cx, &mut scanner, &mut waiting, &self.settings, drain)
        })
        .await
    }

    async fn exchange<H>(
        self: &Rc<Self>,
        head: RequestHead,
        handler: &H,
        drain: &mut Drain,
        served: u64,
    ) -> After
    where
        H: AsyncFn(Request<Body>) -> Response<Body>,
    {
        let asked = Asked {
            method: head.request.method().clone(),
            version: head.request.version(),
            keep_alive: head.keep_alive && self.settings.max_requests.is_none_or(|max| served < max),
            upgrade: head.upgrade,
        };
        let request = self.begin(head);
        let response = {
            let mut handling = std::pin::pin!(handler(request));
            let response = poll_fn(|cx| {
                if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                    return Poll::Ready(Some(response));
                }
                self.state.borrow_mut().poll_disconnected(cx, &self.settings).map(|()| None)
            });
            match response.await {
                Some(response) => response,
                None => return broken(EndReason::Disconnected),
            }
        };
        let after = self.respond(response, asked, drain).await;
        match after {
            After::KeepAlive => self.finish_request().await,
            After::Close { .. } | After::Tunnel(_) => after,
        }
    }

    /// Makes the request that the handler gets.
    fn begin(self: &Rc<Self>, head: RequestHead) -> Request<Body> {
        let state = &mut *self.state.borrow_mut();
        state.exchange += 1;
        state.decoder = Decoder::from(head.framing);
        state.expects = head.expect_continue && !state.decoder.is_done();
        state.head_sent = false;
        state.body_failed = false;
        state.reading.rest();
        state.body_waker = None;
        let body = if state.decoder.is_done() {
            Body::empty()
        } else if let Some(all) = state.decoder.take_complete(&mut state.pipe.input) {
            state.expects = false;
            Body::full(all)
        } else {
            Body::h1(H1Body::new(Rc::clone(self) as Rc<dyn H1Source>, state.exchange))
        };
        head.request.map(|()| body)
    }

    async fn respond(&self, response: Response<Body>, asked: Asked, drain: &Drain) -> After {
        let (mut parts, mut body) = response.into_parts();
        let upgrading = body.is_upgraded();
        let status = match legal_status(parts.status, upgrading, &asked) {
            Ok(status) => status,
            Err(status) => return self.respond_instead(status).await,
        };
        let framing = response_framing(status, &parts.headers, &body, &asked, upgrading);
        if asked.method == Method::HEAD
            && let (Some(n @ 1..), false) =
                (body.size_hint().exact(), parts.headers.contains_key(CONTENT_LENGTH))
        {
            parts.headers.insert(CONTENT_LENGTH, n.into());
        }
        let keep_alive = {
            let state = self.state.borrow();
            asked.keep_alive
                && !drain.is_started()
                && framing != SendFraming::UntilClose
                && !state.expects
                && !state.body_failed
                && !asks_to_close(&parts.headers)
        };
        let connection = match (upgrading && status == StatusCode::SWITCHING_PROTOCOLS, keep_alive) {
            (true, _) => ConnectionField::Upgrade,
            _ if upgrading => ConnectionField::Absent,
            (false, false) => ConnectionField::Close,
            (false, true) if asked.version == Version::HTTP_10 => ConnectionField::KeepAlive,
            (false, true) => ConnectionField::Absent,
        };
        {
            let state = &mut *self.state.borrow_mut();
            state.head_sent = true;
            response_head(state.pipe.out.flat(), status, &parts.headers, framing, connection);
        }
        let mut encoder = Encoder::new(framing);
        if let Err(reason) = poll_fn(|cx| self.poll_response(cx, &mut body, &mut encoder)).await {
            return broken(reason);
        }
        match body.into_upgraded() {
            Ok(upgraded) => After::Tunnel(upgraded),
            Err(_) if keep_alive => After::KeepAlive,
            Err(_) => {
                let reason = if drain.is_started() { EndReason::Drained } else { EndReason::Finished };
                After::Close { reason, linger: !self.state.borrow().decoder.is_done() }
            }
        }
    }

    /// A response that HTTP/1.1 cannot carry here.
    async fn respond_instead(&self, status: StatusCode) -> After {
        {
            let state = &mut *self.state.borrow_mut();
            let headers = HeaderMap::new();
            let out = state.pipe.out.flat();
            response_head(out, status, &headers, SendFraming::Length(0), ConnectionField::Close);
        }
        let _ = poll_fn(|cx| self.state.borrow_mut().pipe.poll_write_out(cx)).await;
        After::Close { reason: EndReason::ResponseFailed, linger: true }
    }

    /// Pulls the response's body and writes it, until all is written.
    fn poll_response(
        &self,
        cx: &mut Context<'_>,
        body: &mut Body,
        encoder: &mut Encoder,
    ) -> Poll<Result<(), EndReason>> {
        loop {
            let mut starved = false;
            while !encoder.is_finished() && !self.state.borrow().pipe.out.is_full() {
                // The state is not borrowed here: a response's body may read from the request's.
                let polled = Pin::new(&mut *body).poll_frame(cx);
                let out = &mut self.state.borrow_mut().pipe.out;
                let encoded = match polled {
                    Poll::Ready(Some(Ok(frame))) => encoder.frame(frame, out),
                    Poll::Ready(None) => encoder.end(out),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(EndReason::ResponseFailed)),
                    Poll::Pending => {
                        starved = true;
                        break;
                    }
                };
                if encoded.is_err() {
                    return Poll::Ready(Err(EndReason::ResponseFailed));
                }
            }
            let mut state = self.state.borrow_mut();
            match state.pipe.poll_write_out(cx) {
                Poll::Ready(Ok(())) if encoder.is_finished() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if !starved => continue,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(write_failed(&error))),
                Poll::Pending => {
                    drop(state);
                    body.poll_progress(cx);
                    state = self.state.borrow_mut();
                }
            }
            return state.poll_disconnected(cx, &self.settings).map(|()| Err(EndReason::Disconnected));
        }
    }

    /// The response is written. Reads what is left of the request, within bounds, so that the next one can be found.
    async fn finish_request(&self) -> After {
        {
            let state = &mut *self.state.borrow_mut();
            // A body that is still held somewhere reads nothing from here on.
            state.exchange += 1;
            if state.decoder.is_done() {
                return After::KeepAlive;
            }
            state.timer.set(self.settings.linger);
        }
        let mut left = self.settings.linger_bytes;
        poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            loop {
                match state.poll_body(cx, &self.settings) {
                    Poll::Ready(None) => {
                        state.timer.clear();
                        return Poll::Ready(After::KeepAlive);
                    }
                    Poll::Ready(Some(Ok(frame))) => match left
                        .checked_sub(frame.data_ref().map_or(0, Bytes::len))
                    {
                        Some(rest) => left = rest,
                        None => {
                            return Poll::Ready(After::Close { reason: EndReason::Finished, linger: true });
                        }
                    },
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(broken(EndReason::BadBody)),
                    Poll::Pending => {
                        ready!(state.timer.poll(cx));
                        return Poll::Ready(broken(EndReason::Finished));
                    }
                }
            }
        })
        .await
    }

    /// Answers a request that could not be read, and closes.
    async fn reject(&self, error: HeadError) {
        {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            let state = &mut *self.state.borrow_mut();
            let out = state.pipe.out.flat();
            let headers = HeaderMap::new();
            response_head(out, status, &headers, SendFraming::Length(0), ConnectionField::Close);
        }
        if poll_fn(|cx| self.state.borrow_mut().pipe.poll_write_out(cx)).await.is_ok() {
            self.close(true).await;
        }
    }

    /// Closes our half, then, if the client may still be sending, reads for a moment: closing on unread bytes resets the
    /// connection, and the reset can overtake the response.
    async fn close(&self, linger: bool) {
        let mut left = self.settings.linger_bytes;
        self.state.borrow_mut().timer.set(self.settings.linger);
        poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            if state.pipe.poll_shutdown(cx).is_ready() {
                if !linger {
                    return Poll::Ready(());
                }
                while let Poll::Ready(read) = state.pipe.poll_fill(cx) {
                    state.pipe.input.clear();
                    match read {
                        Ok(n) if n > 0 && n <= left => left -= n,
                        Ok(_) | Err(_) => return Poll::Ready(()),
                    }
                }
            }
            state.timer.poll(cx)
        })
        .await;
        self.state.borrow_mut().pipe.close();
    }

    async fn tunnel(&self, upgraded: Upgraded, drain: Drain) -> (u64, u64) {
        let Some((mut client, ahead)) = self.state.borrow_mut().pipe.take_io() else { return (0, 0) };
        let Upgraded { io: mut server, read_ahead } = upgraded;
        let (ahead, limits, moved) = ((ahead, read_ahead), &self.settings.tunnel, tunnel::Moved::default());
        let end = tunnel::copy_bidirectional(&mut client, &mut server, ahead, limits, drain, &moved).await;
        (end.a_to_b, end.b_to_a)
    }
}

impl<IO: Io> H1Source for ServerConn<IO> {
    fn poll_frame(
        &self,
        exchange: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.borrow_mut();
        if state.exchange != exchange {
            return Poll::Ready(Some(Err(BodyError::Stale)));
        }
        state.poll_body(cx, &self.settings)
    }

    fn poll_progress(&self, _exchange: u64, _cx: &mut Context<'_>) {}

    fn remaining(&self, exchange: u64) -> Option<u64> {
        let state = self.state.borrow();
        if state.exchange == exchange { state.decoder.remaining() } else { None }
    }

    fn abandon(&self, _exchange: u64) {}
}

fn write_failed(error: &io::Error) -> EndReason {
    if error.kind() == io::ErrorKind::TimedOut { EndReason::Timeout } else { EndReason::Disconnected }
}

/// A final response must be one that HTTP/1.1 can frame; `Err` is what is sent in its place.
fn legal_status(status: StatusCode, upgrading: bool, asked: &Asked) -> Result<StatusCode, StatusCode> {
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    let tunnelling = asked.method == Method::CONNECT && status.is_success();
    match (switching, tunnelling, upgrading) {
        (true, _, true) if asked.upgrade => Ok(status),
        (false, true, true) => Ok(status),
        (false, false, false) if !status.is_informational() => Ok(status),
        _ => Err(StatusCode::BAD_GATEWAY),
    }
}

fn response_framing(
    status: StatusCode,
    headers: &HeaderMap,
    body: &Body,
    asked: &Asked,
    upgrading: bool,
) -> SendFraming {
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if upgrading || bodiless || asked.method == Method::HEAD {
        return SendFraming::None;
    }
    let announced = || headers.get(CONTENT_LENGTH).and_then(|value| parse_length(value.as_bytes()).ok());
    match body.size_hint().exact().or_else(announced) {
        Some(n) => SendFraming::Length(n),
        None if asked.version == Version::HTTP_10 => SendFraming::UntilClose,
        None => SendFraming::Chunked,
    }
}

/// The handler may end the connection with its response.
fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}
