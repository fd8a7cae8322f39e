//! The sockets of a proxy: which there are follows the configuration.
//!
//! Invariant: a socket stays open through changes that do not concern it, and while the proxy drains; only those of the
//! workload's own connections outlast its closing. One core owns them all and
//! hands connections to the others in turn; a connection stays on the core that it was given to.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use leno_identity::{ClientAuth, server_config};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, Interval},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    accept,
    bootstrap::{Capture, HTTP_PROXY_PORT, INBOUND_PORT, MESH_PORT, OUTBOUND_PORT, Role},
    core::Core,
    edge_tls::EdgeTls,
    preface::{ALPN_H1, ALPN_H2, ALPN_TCP},
    probe,
    shared::{Open, Phase},
    turn,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Connections that may wait for another core; beyond them the core that accepts keeps them.
const HANDED: usize = 256;

/// Between two looks at idle connections.
const SWEEP: Duration = Duration::from_secs(1);

/// Sockets are tried again after this, when an address was taken.
const RETRY: Duration = Duration::from_millis(250);

/// A connection on its way to another core.
pub(crate) struct Handed {
    stream: std::net::TcpStream,
    kind: Kind,
    open: Option<Open>,
}

/// Where a core gets its connections from.
pub(crate) enum Intake {
    /// It accepts them, and gives each of the others its share.
    Accepts(Vec<mpsc::Sender<Handed>>),
    /// From the core that accepts.
    Handed(mpsc::Receiver<Handed>),
}

impl Intake {
    /// For `cores` cores, the first of which accepts.
    pub(crate) fn for_cores(cores: usize) -> Vec<Self> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (1..cores).map(|_| mpsc::channel(HANDED)).unzip();
        std::iter::once(Self::Accepts(senders)).chain(receivers.into_iter().map(Self::Handed)).collect()
    }
}

/// Runs one core of a proxy until it is stopped.
pub(crate) async fn run(core: Rc<Core>, intake: Intake, probed: SocketAddr) {
    let desk = Desk::new(core);
    let rounds = Rounds::new(&desk.core, probed);
    match intake {
        Intake::Accepts(others) => accept_all(desk, rounds, others.into()).await,
        Intake::Handed(connections) => take_all(desk, rounds, connections).await,
    }
}

async fn accept_all(desk: Desk, mut rounds: Rounds, others: Rc<[mpsc::Sender<Handed>]>) {
    let core = desk.core.clone();
    let mut sockets: BTreeMap<SocketAddr, JoinHandle<()>> = BTreeMap::new();
    let mut changed = core.shared.changed.subscribe();
    let mut taking_in = Some(Open::new(&core.shared));
    loop {
        let closing = core.shared.is_closing();
        let missing = open_missing(&desk, &others, &mut sockets);
        if closing {
            drop(taking_in.take());
        }
        let again = if missing { Instant::now() + RETRY } else { Instant::now() + SWEEP };
        tokio::select! {
            over = rounds.next() => if over { break },
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(again), if missing => {}
        }
    }
    for socket in sockets.into_values() {
        socket.abort();
    }
}

async fn take_all(desk: Desk, mut rounds: Rounds, mut connections: mpsc::Receiver<Handed>) {
    loop {
        tokio::select! {
            over = rounds.next() => if over { return },
            Some(Handed { stream, kind, open }) = connections.recv() => match TcpStream::from_std(stream) {
                Ok(stream) => desk.serve(stream, kind, open),
                Err(error) => tracing::warn!(%error, "a connection cannot be taken over"),
            },
        }
    }
}

/// What a core does besides traffic.
struct Rounds {
    core: Rc<Core>,
    phase: tokio::sync::watch::Receiver<Phase>,
    sweep: Interval,
    /// Samples the kernel's share until the core ends.
    _probing: AbortOnDropHandle<()>,
}

impl Rounds {
    fn new(core: &Rc<Core>, probed: SocketAddr) -> Self {
        Self {
            core: core.clone(),
            phase: core.shared.phase.subscribe(),
            sweep: tokio::time::interval(SWEEP),
            _probing: AbortOnDropHandle::new(tokio::task::spawn_local(probe::run(core.clone(), probed))),
        }
    }

    /// Does the next thing that is due; true when the core is to end.
    async fn next(&mut self) -> bool {
        let core = &self.core;
        tokio::select! {
            ended = self.phase.changed() => {
                let now = *self.phase.borrow();
                if now >= Phase::Draining {
                    core.drain.start();
                }
                now == Phase::Stopped || ended.is_err()
            }
            _ = self.sweep.tick() => {
                core.report_used();
                core.pool.sweep(crate::forward::target::IDLE.duration());
                core.targets.sweep(&core.shared.tables.load());
                false
            }
        }
    }
}

/// Opens what the configuration asks for and closes what it no longer does; true when something could not be opened.
fn open_missing(
    desk: &Desk,
    others: &Rc<[mpsc::Sender<Handed>]>,
    sockets: &mut BTreeMap<SocketAddr, JoinHandle<()>>,
) -> bool {
    let core = &desk.core;
    let wanted = wanted(core);
    // Of a port that is listened on for two families, the workload's own is what counts.
    let counts = |socket: &SocketAddr| socket.is_ipv4() == core.shared.bootstrap.address.is_ipv4();
    sockets.retain(|socket, listening| {
        let keep = wanted.contains_key(socket) && !listening.is_finished();
        if !keep {
            listening.abort();
            if counts(socket) {
                core.shared.listening.lock().remove(&socket.port());
            }
        }
        keep
    });
    let mut missing = false;
    for (socket, kind) in wanted {
        if sockets.contains_key(&socket) {
            continue;
        }
        match bind(core, socket) {
            Ok((listener, address)) => {
                if counts(&socket) {
                    core.shared.listening.lock().insert(socket.port(), address);
                }
                let taking = take_in(desk.clone(), listener, kind, others.clone());
                sockets.insert(socket, tokio::task::spawn_local(taking));
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::AddrInUse {
                    missing = true;
                }
                tracing::debug!(%socket, %error, "it cannot be listened on");
            }
        }
    }
    missing
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Outbound,
    HttpProxy,
    Mesh,
    /// The application's port of this number, at the proxy's own address.
    Plain(u16),
    /// Any port of the application: the kernel knows which.
    Captured,
    Edge(u16),
}

impl Kind {
    /// Whether others connect there; the workload itself may need its proxy until what it serves is over.
    fn is_from_outside(self) -> bool {
        !matches!(self, Self::Outbound | Self::HttpProxy)
    }
}

fn wanted(core: &Core) -> BTreeMap<SocketAddr, Kind> {
    let tables = core.shared.tables.load();
    let bootstrap = &core.shared.bootstrap;
    let mut wanted = BTreeMap::new();
    match (bootstrap.role, bootstrap.capture) {
        (Role::Sidecar, Capture::ProxyProtocol) => {
            wanted.insert(OUTBOUND_PORT, Kind::Outbound);
            wanted.insert(HTTP_PROXY_PORT, Kind::HttpProxy);
            if let Some(inbound) = tables.inbound() {
                wanted.extend(inbound.workload.ports.iter().map(|port| (port.port, Kind::Plain(port.port))));
                wanted.insert(MESH_PORT, Kind::Mesh);
            }
        }
        (Role::Sidecar, Capture::Captured) => {
            wanted.insert(OUTBOUND_PORT, Kind::Outbound);
            if tables.inbound().is_some() {
                wanted.insert(INBOUND_PORT, Kind::Captured);
                wanted.insert(MESH_PORT, Kind::Mesh);
            }
        }
        (Role::Gateway, _) => {
            if let Some(gateway) = tables.gateway() {
                wanted.extend(gateway.ports().map(|port| (port, Kind::Edge(port))));
            }
        }
    }
    if core.shared.is_closing() {
        wanted.retain(|_, kind| !kind.is_from_outside());
    }
    let at = |port| match bootstrap.capture {
        Capture::ProxyProtocol => vec![bootstrap.own_socket(port)],
        Capture::Captured => everywhere(port).to_vec(),
    };
    wanted
        .into_iter()
        .flat_map(|(port, kind)| at(port).into_iter().map(move |socket| (socket, kind)))
        .collect()
}

/// All addresses of a network namespace, of both families.
pub(crate) fn everywhere(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .map(|any| SocketAddr::new(any, port))
}

fn bind(core: &Core, socket: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let offset = core.shared.bootstrap.low_port_offset;
    let listener = match listen(socket) {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied && socket.port() < 1024 && offset > 0 =>
        {
            listen(SocketAddr::new(socket.ip(), socket.port() + offset))?
        }
        other => other?,
    };
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A listening socket, of its address' family only.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket =
        socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn take_in(desk: Desk, listener: TcpListener, kind: Kind, others: Rc<[mpsc::Sender<Handed>]>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that is gone already: others may still come.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let open = kind.is_from_outside().then(|| Open::new(&desk.core.shared));
        let turn = desk.turn.get() % (others.len() + 1);
        desk.turn.set(turn + 1);
        match others.get(turn) {
            None => desk.serve(stream, kind, open),
            Some(other) => desk.hand_over(stream, kind, open, other),
        }
    }
}

/// Where connections are served on one core.
#[derive(Clone)]
struct Desk {
    core: Rc<Core>,
    mesh: Arc<ServerConfig>,
    edge: Rc<EdgeTls>,
    turn: Rc<Cell<usize>>,
}

impl Desk {
    fn new(core: Rc<Core>) -> Self {
        let mesh = server_config(&core.shared.identity, ClientAuth::Mandatory, &[ALPN_H2, ALPN_H1, ALPN_TCP]);
        Self { core, mesh, edge: Rc::default(), turn: Rc::default() }
    }

    fn hand_over(&self, stream: TcpStream, kind: Kind, open: Option<Open>, other: &mpsc::Sender<Handed>) {
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection cannot be handed over"),
        };
        if let Err(full) = other.try_send(Handed { stream, kind, open }) {
            let Handed { stream, kind, open } = full.into_inner();
            match TcpStream::from_std(stream) {
                Ok(stream) => self.serve(stream, kind, open),
                Err(error) => tracing::warn!(%error, "a connection cannot be taken back"),
            }
        }
    }

    fn serve(&self, stream: TcpStream, kind: Kind, open: Option<Open>) {
        let Self { core, mesh, edge, turn: _ } = self.clone();
        tokio::task::spawn_local(turn::in_turns(None, async move {
            let served = match kind {
                Kind::Outbound => accept::outbound(core, stream).await,
                Kind::HttpProxy => accept::http_proxy(core, stream).await,
                Kind::Mesh => accept::mesh(core, stream, mesh).await,
                Kind::Plain(port) => accept::plain(core, stream, port).await,
                Kind::Captured => accept::captured(core, stream).await,
                Kind::Edge(port) => accept::edge(core, stream, port, edge).await,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(open);
        }));
    }
}
