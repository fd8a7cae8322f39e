//! The sockets of a proxy: which there are follows the configuration.
//!
//! Invariant: a socket stays open through changes that do not concern it, and while the proxy drains.

use std::{collections::BTreeMap, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use leno_identity::{ClientAuth, server_config};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    accept,
    bootstrap::{HTTP_PROXY_PORT, MESH_PORT, OUTBOUND_PORT, Role},
    core::Core,
    edge_tls::EdgeTls,
    preface::{ALPN_H1, ALPN_H2, ALPN_TCP},
    probe,
    shared::Phase,
    turn,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Between two looks at idle connections.
const SWEEP: Duration = Duration::from_secs(1);

/// Sockets are tried again after this, when an address was taken.
const RETRY: Duration = Duration::from_millis(250);

/// Runs one core of a proxy until it is stopped.
pub(crate) async fn run(core: Rc<Core>, probed: SocketAddr) {
    let mut sockets: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    let mut changed = core.shared.changed.subscribe();
    let mut phase = core.shared.phase.subscribe();
    let mut sweep = tokio::time::interval(SWEEP);
    let tls = Rc::new(EdgeTls::default());
    let probing = tokio::task::spawn_local(probe::run(core.clone(), probed));
    loop {
        let missing = open_missing(&core, &tls, &mut sockets);
        tokio::select! {
            ended = phase.changed() => {
                let now = *phase.borrow();
                if now >= Phase::Draining {
                    core.drain.start();
                }
                if now == Phase::Stopped || ended.is_err() {
                    break;
                }
            }
            _ = changed.changed() => {}
            _ = sweep.tick() => {
                core.report_used();
                core.pool.sweep(crate::forward::target::IDLE.duration());
                core.targets.sweep(&core.shared.tables.load());
            }
            () = tokio::time::sleep(RETRY), if missing => {}
        }
    }
    probing.abort();
    for socket in sockets.into_values() {
        socket.abort();
    }
}

/// Opens what the configuration asks for and closes what it no longer does; true when something could not be opened.
fn open_missing(core: &Rc<Core>, tls: &Rc<EdgeTls>, sockets: &mut BTreeMap<u16, JoinHandle<()>>) -> bool {
    let wanted = wanted(core);
    sockets.retain(|port, socket| {
        let keep = wanted.contains_key(port) && !socket.is_finished();
        if !keep {
            socket.abort();
            core.shared.listening.lock().remove(port);
        }
        keep
    });
    let mut missing = false;
    for (port, kind) in wanted {
        if sockets.contains_key(&port) {
            continue;
        }
        match bind(core, port) {
            Ok((listener, address)) => {
                core.shared.listening.lock().insert(port, address);
                sockets.insert(
                    port,
                    tokio::task::spawn_local(take_in(core.clone(), tls.clone(), listener, kind)),
                );
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::AddrInUse {
                    missing = true;
                }
                tracing::debug!(port, %error, "the port cannot be listened on");
            }
        }
    }
    missing
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Outbound,
    HttpProxy,
    Mesh,
    Plain(u16),
    Edge(u16),
}

fn wanted(core: &Core) -> BTreeMap<u16, Kind> {
    let tables = core.shared.tables.load();
    let mut wanted = BTreeMap::new();
    match core.shared.bootstrap.role {
        Role::Sidecar => {
            wanted.insert(OUTBOUND_PORT, Kind::Outbound);
            wanted.insert(HTTP_PROXY_PORT, Kind::HttpProxy);
            if let Some(inbound) = tables.inbound() {
                wanted.extend(inbound.workload.ports.iter().map(|port| (port.port, Kind::Plain(port.port))));
                wanted.insert(MESH_PORT, Kind::Mesh);
            }
        }
        Role::Gateway => {
            if let Some(gateway) = tables.gateway() {
                wanted.extend(gateway.ports().map(|port| (port, Kind::Edge(port))));
            }
        }
    }
    wanted
}

fn bind(core: &Core, port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let bootstrap = &core.shared.bootstrap;
    let own = bootstrap.own_socket(port);
    let listener = match listen(own) {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && port < 1024
                && bootstrap.low_port_offset > 0 =>
        {
            listen(bootstrap.own_socket(port + bootstrap.low_port_offset))?
        }
        other => other?,
    };
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket =
        socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn take_in(core: Rc<Core>, tls: Rc<EdgeTls>, listener: TcpListener, kind: Kind) {
    let config = server_config(&core.shared.identity, ClientAuth::Mandatory, &[ALPN_H2, ALPN_H1, ALPN_TCP]);
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
        let (core, tls, config) = (core.clone(), tls.clone(), Arc::clone(&config));
        tokio::task::spawn_local(turn::in_turns(None, async move {
            let served = match kind {
                Kind::Outbound => accept::outbound(core, stream).await,
                Kind::HttpProxy => accept::http_proxy(core, stream).await,
                Kind::Mesh => accept::mesh(core, stream, config).await,
                Kind::Plain(port) => accept::plain(core, stream, port).await,
                Kind::Edge(port) => accept::edge(core, stream, port, tls).await,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
        }));
    }
}
