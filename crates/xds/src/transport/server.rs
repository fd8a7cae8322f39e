//! The tonic service of the protocol, and `serve`.
//!
//! Invariant: no session exists for a peer that the authorizer refused. The service owns its sessions' tasks and
//! `serve` joins them.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::limits::Limits;
use crate::proto::discovery::{self as pb, discovery_server};
use crate::server::ServerSession;

use super::peer::{Authorizer, Peer, PeerStream};
use super::publisher::Publisher;
use super::session::SessionTask;
use super::sessions::Sessions;

/// Times and bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Bounds of every stream.
    pub limits: Limits,
    /// How long a client may leave its hello, its resume or an ack out.
    pub answer_timeout: Duration,
    /// A stream is ended after about this time (up to a quarter less, by client), so that clients spread anew.
    pub stream_age: Duration,
    /// No more streams than this are served at a time.
    pub sessions: usize,
    /// How often an idle connection is probed, and how long the answer may take.
    pub keepalive: (Duration, Duration),
    /// How long connections may take to end when the server stops.
    pub stop_grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            answer_timeout: Duration::from_secs(30),
            stream_age: Duration::from_secs(30 * 60),
            sessions: 16 << 10,
            keepalive: (Duration::from_secs(20), Duration::from_secs(10)),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// The discovery service. Clones share their sessions.
#[derive(Clone)]
pub struct DiscoveryService {
    config: Arc<ServerConfig>,
    publisher: Publisher,
    sessions: Sessions,
    authorizer: Arc<dyn Authorizer>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The server ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
#[error("the discovery server failed")]
pub struct ServeError(#[from] tonic::transport::Error);

impl DiscoveryService {
    /// A service that hands out what `publisher` publishes to peers that `authorizer` admits.
    pub fn new(config: ServerConfig, publisher: Publisher, authorizer: impl Authorizer) -> Self {
        Self {
            config: Arc::new(config),
            publisher,
            sessions: Sessions::default(),
            authorizer: Arc::new(authorizer),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// How far every client is.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// This service as routes; others may be added to the same port.
    pub fn routes(&self) -> Routes {
        let bytes = self.config.limits.message_bytes;
        let service = discovery_server::DiscoveryServer::new(self.clone());
        Routes::new(service.max_decoding_message_size(bytes).max_encoding_message_size(bytes))
    }

    fn ends_at(&self, id: &str) -> Instant {
        // Spread by client without a source of randomness: a quarter of the age, by the hash of the id.
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let early = (hasher.finish() % 256) as u32;
        Instant::now() + self.config.stream_age - self.config.stream_age / 4 / 256 * early
    }
}

#[tonic::async_trait]
impl discovery_server::Discovery for DiscoveryService {
    type StreamStream = ReceiverStream<Result<pb::Delta, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::Request>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if self.tasks.len() >= self.config.sessions {
            return Err(Status::resource_exhausted("too many streams"));
        }
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let mut inbound = request.into_inner();
        let first = timeout(self.config.answer_timeout, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in time"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended without a hello"))?;
        let session = ServerSession::open(self.config.limits.clone(), first)
            .map_err(|violation| Status::invalid_argument(violation.to_string()))?;
        self.authorizer
            .authorize(&peer, session.node())
            .map_err(|unauthorized| Status::permission_denied(unauthorized.reason))?;
        let (outbound, deltas) = mpsc::channel(2);
        let task = SessionTask {
            inbound,
            outbound,
            publications: self.publisher.watch(),
            entry: self.sessions.enter(session.status()),
            stop: self.stop.clone(),
            answer_timeout: self.config.answer_timeout,
            ends_at: self.ends_at(&session.node().id),
            session,
        };
        self.tasks.spawn(task.run());
        Ok(Response::new(ReceiverStream::new(deltas)))
    }
}

/// Serves `routes` (the service's own, with others added) on accepted connections until `shutdown`.
///
/// `incoming` yields connections whose TLS handshake is done; an error in it is one lost connection.
pub async fn serve<IO>(
    service: &DiscoveryService,
    routes: Routes,
    incoming: impl Stream<Item = std::io::Result<PeerStream<IO>>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (interval, answer) = service.config.keepalive;
    let server = Server::builder()
        .http2_keepalive_interval(Some(interval))
        .http2_keepalive_timeout(Some(answer))
        .max_concurrent_streams(64)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, service.stop.cancelled());
    tokio::pin!(server);
    let early = tokio::select! {
        ended = &mut server => Some(ended),
        () = shutdown => None,
    };
    service.stop.cancel();
    service.tasks.close();
    let rest = async {
        let ended = match early {
            Some(ended) => ended,
            None => server.await,
        };
        service.tasks.wait().await;
        ended
    };
    // Past the grace the connections are dropped with the server.
    timeout(service.config.stop_grace, rest).await.unwrap_or(Ok(()))?;
    Ok(())
}
