//! Takes connections in: finds out what they are for and what they speak, and gives them to a pipeline.
//!
//! Invariants: every step before the first request has a deadline; a connection that does not prove what its port demands is
//! closed before a byte of it reaches the application.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use leno_capture::PROBES;
use leno_decide::{Admission, NoTrace, Outbound, admit_connection};
use leno_identity::{HandshakeFailure, PeerIdentity, peer_identity};
use leno_model::{GatewayProtocol, Protocol};
use leno_telemetry::{PeerMeta, ServiceMeta, metrics::names};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::{
    bootstrap::Capture,
    capture::{arrival::original_destination, verify},
    core::Core,
    detect,
    edge_tls::EdgeTls,
    forward::stream::Stream,
    http::{Drain, DrainTrigger, ServerSettings, serve_auto, serve_h1, serve_h2},
    preface::{self, ALPN_H2, ALPN_TCP, Preface},
    proxy_protocol,
    serve_http::{self, Chosen, EdgeConnection, InboundConnection, OutboundConnection},
    serve_tcp,
    standing::until_not,
    turn,
};

/// Everything before the first request: PROXY header, handshake, preface.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Longest that a peer may say it keeps an idle connection.
const LONGEST_IDLE: Duration = Duration::from_secs(3600);

/// A connection of our application, which dialled an address.
pub(crate) async fn outbound(core: Rc<Core>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if !is_ours(&core, &stream)? {
        return Ok(());
    }
    let capture = core.shared.bootstrap.capture;
    let dialled = match capture {
        Capture::ProxyProtocol => {
            let header = tokio::time::timeout(ARRIVAL, proxy_protocol::read(&mut stream)).await;
            let Some(header) = header.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
            header.destination
        }
        Capture::Captured => original_destination(&stream)?,
    };
    if capture == Capture::Captured && PROBES.contains(&dialled) {
        return verify::answer(&core.shared, &mut stream).await;
    }
    let tables = core.shared.tables.load_full();
    let (protocol, seen) = match tables.outbound_by_address(dialled.ip(), dialled.port()) {
        Outbound::Known(known) => (known.port.protocol, core.was_http(dialled)),
        Outbound::Unknown if core.shared.bootstrap.allow_unknown => {
            serve_tcp::past(&core, &mut stream, dialled).await;
            return Ok(());
        }
        // In a pod the address is real: a headless service's pod has more ports than the service names.
        Outbound::NoSuchPort(_) if capture == Capture::Captured && core.shared.bootstrap.allow_unknown => {
            serve_tcp::past(&core, &mut stream, dialled).await;
            return Ok(());
        }
        Outbound::NoSuchPort(_) | Outbound::Hidden(_) | Outbound::Unknown => {
            tracing::debug!(%dialled, "no service that this workload may call is there; the connection is closed");
            return Ok(());
        }
    };
    let patience = if seen { ARRIVAL } else { detect::SILENCE };
    let http = match protocol {
        Protocol::Detect => detect::is_http(&stream, patience).await?,
        other => other.is_http(),
    };
    if http {
        core.saw_http(dialled);
        serve_outbound(&core, stream, Some(dialled)).await?;
    } else {
        serve_tcp::outbound(&core, &mut stream, dialled).await;
    }
    Ok(())
}

/// A client that names hosts in its requests (`HTTP_PROXY`).
pub(crate) async fn http_proxy(core: Rc<Core>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if is_ours(&core, &stream)? { serve_outbound(&core, stream, None).await } else { Ok(()) }
}

/// Whether it is our application that connects: what comes here leaves with the workload's identity.
fn is_ours(core: &Core, stream: &TcpStream) -> io::Result<bool> {
    let remote = stream.peer_addr()?;
    // What the kernel redirects comes by loopback when it is of this pod, whichever of the pod's addresses it has.
    let redirected = core.shared.bootstrap.capture == Capture::Captured
        && stream.local_addr()?.ip().to_canonical().is_loopback();
    let own = core.is_own(remote.ip()) || redirected;
    if !own {
        tracing::info!(%remote, "a stranger at the outbound port is closed");
    }
    Ok(own)
}

async fn serve_outbound(
    core: &Rc<Core>,
    stream: TcpStream,
    dialled: Option<std::net::SocketAddr>,
) -> io::Result<()> {
    let (remote, local) = (stream.peer_addr()?, stream.local_addr()?);
    let connection = Rc::new(OutboundConnection { remote, local, dialled });
    let handler_core = core.clone();
    let handler =
        Rc::new(async move |request| serve_http::outbound(&handler_core, &connection, request).await);
    serve_auto(stream, core.server.clone(), handler, core.drain.handle()).await;
    Ok(())
}

/// A peer's proxy.
pub(crate) async fn mesh(core: Rc<Core>, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let remote = stream.peer_addr()?;
    let local = stream.local_addr()?.ip();
    let arrived =
        tokio::time::timeout(ARRIVAL, greet(stream, config)).await.map_err(|_| io::ErrorKind::TimedOut)?;
    let (stream, preface) = match arrived {
        Ok(arrived) => arrived,
        Err(error) => {
            let cause = HandshakeFailure::from(&error);
            if matches!(cause, HandshakeFailure::PeerPlaintext) {
                core.plaintext_refused(crate::bootstrap::MESH_PORT);
            }
            tracing::info!(%remote, %cause, "a peer's handshake failed");
            return Ok(());
        }
    };
    let session = stream.get_ref().1;
    let Some(peer) = peer_identity(session) else { return Ok(()) };
    let sni: Option<Arc<str>> = session.server_name().map(Into::into);
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec).unwrap_or_default();
    let tables = core.shared.tables.load_full();
    let Some((inbound, preface::Called { port: service_port, host, pod: _ })) =
        tables.inbound().zip(sni.as_deref().and_then(preface::parse_sni))
    else {
        tracing::info!(%remote, "a peer names no service of ours, or our configuration has not arrived");
        return Ok(());
    };
    let Some(port) = workload_port(inbound, host, service_port) else {
        tracing::info!(%remote, host, service_port, "a peer asks for a service that this workload does not serve");
        return Ok(());
    };
    let expires = until_expired(&peer);
    let connection = Rc::new(InboundConnection {
        source: source_meta(&preface, &peer.spiffe_id),
        peer: Some(peer.spiffe_id),
        remote,
        local,
        port,
        service: service_meta(inbound, port, host),
        sni,
        owed: Rc::default(),
    });
    let mut settings = (*core.server).clone();
    // The peer closes an idle connection; we wait longer, so that it never finds one closed (PAINS P2), but not for ever.
    settings.keep_alive = preface.idle.duration().min(LONGEST_IDLE) + Duration::from_secs(30);
    let mut stream = Stream::Server(Box::new(stream));
    turn::restart();
    let inside = match &*alpn {
        // What is declared here is believed, not what the peer calls it: as bytes, its requests could say who sends them.
        ALPN_TCP if inbound.port(port).protocol.is_http() => Inside::Unknown,
        ALPN_TCP => {
            serve_tcp::inbound(&core, &connection, &mut stream).await;
            return Ok(());
        }
        ALPN_H2 => Inside::H2,
        _ => Inside::H1,
    };
    // Its requests finish; its next ones come by a connection that its new certificate has opened, if it was given one.
    let end = DrainTrigger::new();
    let (drain, mut asked) = (end.handle(), core.drain.handle());
    let ask = async {
        tokio::select! {
            () = asked.started() => {}
            () = tokio::time::sleep(expires) => {
                tracing::debug!(%remote, "a peer's certificate has ended; its connection is asked to");
            }
        }
        end.start();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serve_inbound(&core, stream, connection, Rc::new(settings), inside, drain) => {}
        () = ask => {}
    }
    Ok(())
}

/// How long what a peer has proved is still true.
fn until_expired(peer: &PeerIdentity) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(peer.not_after.as_secs()).saturating_sub(now)
}

/// The version of HTTP in a peer's connection.
#[derive(Clone, Copy)]
enum Inside {
    H1,
    H2,
    Unknown,
}

async fn greet(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<(tokio_rustls::server::TlsStream<TcpStream>, Preface)> {
    let mut stream = TlsAcceptor::from(config).accept(stream).await?;
    let preface = Preface::read(&mut stream).await?;
    Ok((stream, preface))
}

async fn serve_inbound(
    core: &Rc<Core>,
    stream: Stream,
    connection: Rc<InboundConnection>,
    settings: Rc<ServerSettings>,
    inside: Inside,
    drain: Drain,
) {
    let (handler_core, handled) = (core.clone(), connection.clone());
    let handler = Rc::new(async move |request| serve_http::inbound(&handler_core, &handled, request).await);
    let serve = async {
        match inside {
            Inside::H1 => serve_h1(stream, settings, handler, drain).await,
            Inside::H2 => serve_h2(stream, settings, handler, drain).await,
            Inside::Unknown => serve_auto(stream, settings, handler, drain).await,
        }
    };
    tokio::select! {
        _ = serve => {}
        () = until_not_admitted(core, &connection) => {
            tracing::info!(remote = %connection.remote, "a change of policy closes a connection");
        }
    }
}

/// The port of ours that a peer's service port leads to; a direct call names our own port.
fn workload_port(inbound: &leno_decide::Inbound, host: &str, service_port: u16) -> Option<u16> {
    let ports = &inbound.workload.ports;
    let leads_here = |service: &leno_model::InboundService| {
        service.port == service_port && service.service.host.as_str() == host
    };
    ports.iter().find(|port| port.services.iter().any(leads_here)).map(|port| port.port)
}

fn source_meta(preface: &Preface, peer: &leno_model::SpiffeId) -> Arc<PeerMeta> {
    let Preface { workload, namespace: _, canonical, app, cluster, place, idle: _ } = preface;
    Arc::new(PeerMeta {
        workload: workload.clone(),
        // The namespace is the verified one.
        namespace: peer.namespace().unwrap_or_default().into(),
        canonical_service: canonical.0.clone(),
        canonical_revision: canonical.1.clone(),
        app: app.0.clone(),
        version: app.1.clone(),
        cluster: cluster.clone(),
        principal: Some(peer.clone()),
        region: place.0.clone(),
        zone: place.1.clone(),
    })
}

fn service_meta(inbound: &leno_decide::Inbound, port: u16, host: &str) -> Arc<ServiceMeta> {
    match inbound.service(port, (!host.is_empty()).then_some(host)) {
        Some(called) => Arc::new(ServiceMeta {
            host: called.service.host.shared(),
            name: called.service.short_name().into(),
            namespace: called.service.namespace.shared(),
        }),
        None => ServiceMeta::unknown(),
    }
}

/// An outsider, at the proxy's own address.
pub(crate) async fn plain(core: Rc<Core>, stream: TcpStream, port: u16) -> io::Result<()> {
    let dialled = SocketAddr::new(stream.local_addr()?.ip(), port);
    outsider(core, stream, dialled).await
}

/// An outsider that dialled the workload, at whatever port.
pub(crate) async fn captured(core: Rc<Core>, stream: TcpStream) -> io::Result<()> {
    let dialled = original_destination(&stream)?;
    outsider(core, stream, dialled).await
}

/// Plaintext to a port of the application.
async fn outsider(core: Rc<Core>, mut stream: TcpStream, dialled: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let port = dialled.port();
    let tables = core.shared.tables.load_full();
    let Some(inbound) = tables.inbound() else { return Ok(()) };
    let rule = inbound.port(port);
    if admit_connection(&rule, false, &mut NoTrace) == Admission::PlaintextRefused {
        core.plaintext_refused(port);
        tracing::info!(remote = ?stream.peer_addr(), port, mode = %rule.mtls_origin, "plaintext is refused");
        return Ok(());
    }
    let connection = Rc::new(InboundConnection {
        peer: None,
        source: PeerMeta::unknown(),
        remote: stream.peer_addr()?,
        local: dialled.ip(),
        port,
        service: service_meta(inbound, port, ""),
        sni: None,
        owed: Rc::default(),
    });
    let http = match rule.protocol {
        Protocol::Detect => detect::is_http(&stream, detect::SILENCE).await?,
        other => other.is_http(),
    };
    if !http {
        serve_tcp::inbound(&core, &connection, &mut stream).await;
        return Ok(());
    }
    let (handler_core, handled) = (core.clone(), connection.clone());
    let handler = Rc::new(async move |request| serve_http::inbound(&handler_core, &handled, request).await);
    tokio::select! {
        _ = serve_auto(stream, core.strangers.clone(), handler, core.drain.handle()) => {}
        () = until_not_admitted(&core, &connection) => {}
    }
    Ok(())
}

/// Ends when the mTLS mode would refuse the connection. Its requests are judged one by one, for as long as they are open.
async fn until_not_admitted(core: &Core, connection: &InboundConnection) {
    let admitted = |inbound: &leno_decide::Inbound| {
        let rule = inbound.port(connection.port);
        admit_connection(&rule, connection.peer.is_some(), &mut NoTrace) == Admission::Admit
    };
    until_not(core, admitted).await;
}

/// A client at a gateway's port.
pub(crate) async fn edge(
    core: Rc<Core>,
    mut stream: TcpStream,
    port: u16,
    tls: Rc<EdgeTls>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (remote, local) = (stream.peer_addr()?, stream.local_addr()?);
    let tables = core.shared.tables.load_full();
    let Some(gateway) = tables.gateway().cloned() else { return Ok(()) };
    let listeners = gateway.listeners(port);
    let Some(first) = listeners.first() else { return Ok(()) };
    if first.listener.protocol == GatewayProtocol::Http {
        let connection = EdgeConnection { remote, local, port, scheme: "http", listener: None, sni: None };
        serve_edge(&core, Stream::Plain(stream), connection, core.drain.handle()).await;
        return Ok(());
    }
    if first.listener.protocol == GatewayProtocol::Tcp {
        let connection = EdgeConnection { remote, local, port, scheme: "tcp", listener: None, sni: None };
        serve_tcp::edge(&core, &tables, &first.tcp, &connection, &mut stream).await;
        return Ok(());
    }
    let sni = detect::server_name(&stream).await?;
    let Some(table) = gateway.by_sni(port, sni.as_deref()) else {
        tracing::debug!(%remote, ?sni, "no listener serves this name");
        return Ok(());
    };
    let listener = &table.listener;
    let sni: Option<Arc<str>> = sni.map(Into::into);
    match &listener.protocol {
        GatewayProtocol::TlsPassthrough => {
            let connection = EdgeConnection { remote, local, port, scheme: "tls", listener: None, sni };
            serve_tcp::edge(&core, &tables, &table.tcp, &connection, &mut stream).await;
        }
        GatewayProtocol::MeshPassthrough => serve_tcp::through(&core, &tables, &mut stream).await,
        GatewayProtocol::Https(settings) | GatewayProtocol::Tls(settings) => {
            let http = matches!(listener.protocol, GatewayProtocol::Https(_));
            let config = match tls.config(&tables, listener, settings, http) {
                Ok(config) => config,
                Err(error) => {
                    tracing::warn!(listener = %listener.origin, %error, "its handshakes are refused");
                    return Ok(());
                }
            };
            let accepted = tokio::time::timeout(ARRIVAL, TlsAcceptor::from(config).accept(stream)).await;
            let stream = match accepted {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%remote, %error, "a client's handshake failed");
                    return Ok(());
                }
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            };
            let mut stream = Stream::Server(Box::new(stream));
            turn::restart();
            let chosen = Chosen { name: listener.name.clone(), client_ca: settings.client_ca.clone() };
            let scheme = if http { "https" } else { "tls" };
            let connection = EdgeConnection { remote, local, port, scheme, listener: Some(chosen), sni };
            if http {
                serve_edge(&core, stream, connection, core.drain.handle()).await;
            } else {
                serve_tcp::edge(&core, &tables, &table.tcp, &connection, &mut stream).await;
            }
        }
        GatewayProtocol::Http | GatewayProtocol::Tcp => {}
    }
    Ok(())
}

async fn serve_edge(core: &Rc<Core>, stream: Stream, connection: EdgeConnection, drain: Drain) {
    let (handler_core, connection) = (core.clone(), Rc::new(connection));
    let handler = Rc::new(async move |request| serve_http::edge(&handler_core, &connection, request).await);
    serve_auto(stream, core.strangers.clone(), handler, drain).await;
}

impl Core {
    /// Counts plaintext where only mTLS is accepted.
    fn plaintext_refused(&self, port: u16) {
        let registry = self.shared.telemetry.registry();
        registry.counter(&names::PLAINTEXT_REFUSED, [port.to_string().as_str()]).add(1);
    }
}
