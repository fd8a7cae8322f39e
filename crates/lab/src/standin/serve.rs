//! Listeners, connections, and the graceful stop.
//!
//! Invariants: connections are bounded; a stop refuses new connections, lets requests under way finish, tells HTTP/2
//! peers with GOAWAY and HTTP/1.1 peers with `connection: close`, and ends at its deadline at the latest.
//! An idle HTTP/1.1 connection is not closed at once, since a request may be on its way on it: it may carry one more.
//! Must not know: what is answered.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::client::Client;
use super::counters::Counters;
use super::graph::App;
use super::notes::Notes;
use super::{Dialer, ListenSpec, StandInProtocol, StandInSpec, respond, tcp};

/// Most open connections of one listener; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
const BACKLOG: u32 = 1024;
const MAX_STREAMS: u32 = 256;
/// Idle HTTP/1.1 connections to each target.
const MAX_IDLE: usize = 4;
/// How long an HTTP/1.1 connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(300);
/// How long a stop waits at most for a last request on an idle HTTP/1.1 connection.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a stand-in could not start.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// An address cannot be bound.
    #[error("stand-in {name} cannot listen on {address}")]
    Listen {
        /// The stand-in.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file of its notes cannot be written.
    #[error("stand-in {name} cannot keep its notes")]
    Notes {
        /// The stand-in.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// A stand-in that serves; dropped without `stop`, it ends at once.
pub struct Running {
    app: Arc<App>,
    addresses: Vec<(String, SocketAddr)>,
}

/// How a stop went.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// Everything under way finished before the deadline.
    pub in_time: bool,
    /// The final numbers.
    pub counters: Counters,
}

pub(super) fn start(spec: StandInSpec, dialer: Dialer) -> Result<Running, StandInError> {
    let mut listeners = Vec::with_capacity(spec.listeners.len());
    for listen in &spec.listeners {
        let (name, address) = (&spec.name, listen.address);
        let failed = |source| StandInError::Listen { name: name.clone(), address, source };
        listeners.push((bind(listen.address).map_err(failed)?, listen.clone()));
    }
    let notes = Notes::open(spec.notes.as_deref())
        .map_err(|source| StandInError::Notes { name: spec.name.clone(), source })?;
    let app = App::new(spec, Client::new(dialer, MAX_IDLE), notes);
    let mut addresses = Vec::with_capacity(listeners.len());
    for (listener, listen) in listeners {
        let ListenSpec { address, port_name, protocol } = listen;
        addresses.push((port_name, listener.local_addr().unwrap_or(address)));
        let accepting = accept(Arc::clone(&app), listener, protocol);
        let killed = app.killed.clone();
        app.tasks.spawn(async move { killed.run_until_cancelled_owned(accepting).await });
    }
    Ok(Running { app, addresses })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Running {
    /// The addresses of the listeners, in the order of the specification, with their ports' names.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The numbers up to here.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.app.counting.snapshot()
    }

    /// What it was started with.
    #[must_use]
    pub fn spec(&self) -> &StandInSpec {
        &self.app.spec
    }

    /// Stops accepting, finishes what is under way for at most `grace`, and ends.
    pub async fn stop(self, grace: Duration) -> Stopped {
        let deadline = Instant::now() + grace;
        self.app.draining.cancel();
        self.app.tasks.close();
        let in_time = tokio::time::timeout_at(deadline, self.app.tasks.wait()).await.is_ok();
        self.app.killed.cancel();
        self.app.tasks.wait().await;
        // Its own connections have nobody left who reads from them; they end when their peers agree, or here.
        let _closed = timeout(LAST_REQUEST, self.app.client.close()).await;
        Stopped { in_time, counters: self.app.counting.snapshot() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.app.killed.cancel();
    }
}

async fn accept(app: Arc<App>, listener: TcpListener, protocol: StandInProtocol) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let protocol = Arc::new(protocol);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            // Connections that the kernel has completed already are served before the stop is seen.
            accepted = listener.accept() => accepted,
            () = app.draining.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (serving, protocol) = (Arc::clone(&app), Arc::clone(&protocol));
        app.tasks.spawn(async move {
            serving.counting.opened();
            let killed = serving.killed.clone();
            killed.run_until_cancelled(serve(&serving, stream, &protocol)).await;
            serving.counting.closed();
            drop(slot);
        });
    }
}

async fn serve(app: &Arc<App>, stream: TcpStream, protocol: &StandInProtocol) {
    // A peer that does not care for latency loses nothing; a failure here shows on the next read.
    let _set = stream.set_nodelay(true);
    let ended = match protocol {
        StandInProtocol::Auto => Box::pin(serve_http(app, stream)).await,
        StandInProtocol::Tcp => tcp::echo(app, stream, None).await,
        StandInProtocol::TcpServerFirst(banner) => tcp::echo(app, stream, Some(banner)).await,
    };
    if let Err(error) = ended {
        tracing::trace!(pod = app.spec.name, %error, "connection ended");
    }
}

async fn serve_http(app: &Arc<App>, stream: TcpStream) -> io::Result<()> {
    let speaks_h2 = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let (app, speaks_h2) = (Arc::clone(app), Arc::clone(&speaks_h2));
        async move {
            speaks_h2.store(request.version() == http::Version::HTTP_2, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(respond::answer(app, request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).half_close(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let shut_down = async {
        app.draining.cancelled().await;
        if !speaks_h2.load(Ordering::Relaxed) {
            tokio::time::sleep(LAST_REQUEST).await;
        }
    };
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = shut_down => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}
