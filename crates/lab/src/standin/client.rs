//! Sends HTTP requests over pooled connections: HTTP/1.1 with keep-alive, HTTP/2 with prior knowledge.
//!
//! Invariants: a request is sent again only when hyper hands it back unsent (the pooled connection had been closed
//! under it); an HTTP/1.1 connection returns to the pool only after its response was read to the end; idle connections
//! are bounded for each endpoint.
//! Must not know: what the requests mean.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::dial::{DialError, Dialer};

/// Where to and in which version of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// HTTP/2 with prior knowledge instead of HTTP/1.1.
    pub http2: bool,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection failed before the response began.
    #[error("no response")]
    Broken(#[source] hyper::Error),
    /// An HTTP/2 server that is going away promises that it has not begun the request: it may be sent again.
    #[error("not begun by a server that goes away")]
    NotBegun(#[source] hyper::Error),
}

impl SendError {
    fn broken(error: hyper::Error) -> Self {
        // RFC 9113, 6.8 and 8.7: streams above the last of a GOAWAY, and REFUSED_STREAM, were not processed.
        let not_begun = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<h2::Error>())
            .is_some_and(|h2| {
                let reason = h2.reason();
                (h2.is_go_away() && h2.is_remote() && reason == Some(h2::Reason::NO_ERROR))
                    || (h2.is_reset() && h2.is_remote() && reason == Some(h2::Reason::REFUSED_STREAM))
            });
        if not_begun { Self::NotBegun(error) } else { Self::Broken(error) }
    }
}

/// Connections to any number of endpoints; clones share them.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    max_idle: usize,
    slots: Mutex<HashMap<Endpoint, Arc<Slot>>>,
    connections: TaskTracker,
}

struct Slot {
    idle: Mutex<Vec<http1::SendRequest<Body>>>,
    shared: Mutex<Option<http2::SendRequest<Body>>>,
    // One HTTP/2 dial at a time: who waits finds the connection of who went before.
    dialing: Semaphore,
    max_idle: usize,
}

impl Client {
    /// Keeps at most `max_idle` HTTP/1.1 connections waiting for each endpoint.
    #[must_use]
    pub fn new(dialer: Dialer, max_idle: usize) -> Self {
        let slots = Mutex::default();
        Self { shared: Arc::new(Shared { dialer, max_idle, slots, connections: TaskTracker::new() }) }
    }

    /// How it dials.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// Sends a request. HTTP/1.1 wants the URI in origin form and a `host` header, HTTP/2 an absolute URI.
    pub async fn send(
        &self,
        to: &Endpoint,
        request: Request<Body>,
    ) -> Result<Response<ReplyBody>, SendError> {
        let slot = self.slot(to);
        if to.http2 { self.send_h2(to, &slot, request).await } else { self.send_h1(to, slot, request).await }
    }

    /// Drops idle connections and waits for those in use.
    pub async fn close(&self) {
        self.shared.slots.lock().clear();
        self.shared.connections.close();
        self.shared.connections.wait().await;
    }

    fn slot(&self, to: &Endpoint) -> Arc<Slot> {
        let mut slots = self.shared.slots.lock();
        if let Some(slot) = slots.get(to) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            idle: Mutex::default(),
            shared: Mutex::default(),
            dialing: Semaphore::new(1),
            max_idle: self.shared.max_idle,
        });
        slots.insert(to.clone(), Arc::clone(&slot));
        slot
    }

    async fn send_h1(
        &self,
        to: &Endpoint,
        slot: Arc<Slot>,
        mut request: Request<Body>,
    ) -> Result<Response<ReplyBody>, SendError> {
        loop {
            let pooled = slot.idle.lock().pop();
            let fresh = pooled.is_none();
            let mut sender = match pooled {
                Some(sender) => sender,
                None => self.dial_h1(to).await?,
            };
            if sender.ready().await.is_err() && !fresh {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let keep = response.status() != http::StatusCode::SWITCHING_PROTOCOLS;
                    let lease = keep.then_some((slot, sender));
                    return Ok(response.map(|body| ReplyBody::new(body, lease)));
                }
                Err(mut error) => match error.take_message().filter(|_| !fresh) {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::broken(error.into_error())),
                },
            }
        }
    }

    async fn send_h2(
        &self,
        to: &Endpoint,
        slot: &Slot,
        mut request: Request<Body>,
    ) -> Result<Response<ReplyBody>, SendError> {
        let mut again = true;
        loop {
            let mut sender = self.h2_sender(to, slot).await?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| ReplyBody::new(body, None))),
                Err(mut error) => match error.take_message().filter(|_| again) {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::broken(error.into_error())),
                },
            }
            again = false;
            *slot.shared.lock() = None;
        }
    }

    async fn h2_sender(&self, to: &Endpoint, slot: &Slot) -> Result<http2::SendRequest<Body>, SendError> {
        let usable = || slot.shared.lock().clone().filter(|sender| !sender.is_closed());
        if let Some(sender) = usable() {
            return Ok(sender);
        }
        let _turn = slot.dialing.acquire().await;
        if let Some(sender) = usable() {
            return Ok(sender);
        }
        let stream = self.shared.dialer.dial(&to.host, to.port).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Broken)?;
        self.shared.connections.spawn(async move {
            // How a connection ended is told to the requests on it.
            let _ended = connection.await;
        });
        *slot.shared.lock() = Some(sender.clone());
        Ok(sender)
    }

    async fn dial_h1(&self, to: &Endpoint) -> Result<http1::SendRequest<Body>, SendError> {
        let stream = self.shared.dialer.dial(&to.host, to.port).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::Broken)?;
        self.shared.connections.spawn(async move {
            // As above.
            let _ended = connection.with_upgrades().await;
        });
        Ok(sender)
    }
}

/// A response's body; at its end the connection goes back to the pool.
pub struct ReplyBody {
    body: Incoming,
    lease: Option<(Arc<Slot>, http1::SendRequest<Body>)>,
}

impl ReplyBody {
    fn new(body: Incoming, lease: Option<(Arc<Slot>, http1::SendRequest<Body>)>) -> Self {
        let mut reply = Self { body, lease };
        if reply.body.is_end_stream() {
            reply.put_back();
        }
        reply
    }

    fn put_back(&mut self) {
        let Some((slot, sender)) = self.lease.take() else { return };
        let mut idle = slot.idle.lock();
        if !sender.is_closed() && idle.len() < slot.max_idle {
            idle.push(sender);
        }
    }
}

impl hyper::body::Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Err(_)) => self.lease = None,
            Some(Ok(_)) | None => self.put_back(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One endpoint as a transport for generated gRPC clients.
#[derive(Clone)]
pub struct Channel {
    client: Client,
    to: Endpoint,
    authority: http::uri::Authority,
}

impl Channel {
    /// A channel to `to`, which it turns into HTTP/2; `authority` is what the server is told.
    #[must_use]
    pub fn new(client: Client, to: Endpoint, authority: http::uri::Authority) -> Self {
        Self { client, to: Endpoint { http2: true, ..to }, authority }
    }
}

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<ReplyBody>;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, SendError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        let (client, to) = (self.client.clone(), self.to.clone());
        Box::pin(async move {
            *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
            client.send(&to, request).await
        })
    }
}
