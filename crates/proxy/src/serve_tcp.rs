//! The pipelines of connections whose requests are not seen: outbound, inbound, at a gateway, and past the mesh.
//!
//! Invariant: a connection to our application stays open only while policy would still admit it.

use std::{
    cell::Cell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use leno_decide::{BackendState, NoTrace, Outbound, Tables, TcpFacts, TcpOutcome, TcpTable, tcp::route_tcp};
use leno_model::ServiceId;
use leno_telemetry::{
    ConnectionRecord, ConnectionSecurity, PeerMeta, Reporter, ResponseFlags, ServiceMeta,
    record::{ConnectionDetails, inbound_cluster},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use crate::{
    balance::{
        cluster::{Choice, InFlight},
        health::Outcome,
    },
    config::demand::Demanded,
    core::Core,
    forward::{
        attempts::hop_to,
        connect::{Security, connect},
        exchange::{HopError, take_slot},
        pool::{Slot, Version},
        stream::Stream,
        target::Target,
    },
    http::tunnel::{Moved, TunnelEnd, TunnelLimits, TunnelReason, copy_bidirectional},
    policy::{self, Admitted},
    preface::{self, Called},
    serve_http::{EdgeConnection, InboundConnection},
    shared::Busy,
    standing::until_not,
};

/// Endpoints that are tried for one connection.
const TRIES: usize = 3;

/// How often the bytes of a connection that goes on are counted; Istio's default as well.
const REPORTED_EVERY: Duration = Duration::from_secs(15);

/// A connection's record, opened and closed in one place. Dropped without an end, the connection was reset by us.
struct Open {
    core: Rc<Core>,
    record: ConnectionRecord,
    started: Instant,
    moved: Moved,
    reported: (Cell<u64>, Cell<u64>),
    end: Option<ResponseFlags>,
}

impl Open {
    fn new(
        core: &Rc<Core>,
        reporter: Reporter,
        source: Arc<PeerMeta>,
        destination: Arc<PeerMeta>,
        service: Arc<ServiceMeta>,
    ) -> Self {
        let record = ConnectionRecord::new(reporter, source, destination, service, SystemTime::now());
        let (moved, reported) = Default::default();
        Self { core: core.clone(), record, started: Instant::now(), moved, reported, end: None }
    }

    /// The connection's ends, when somebody logs them.
    fn ends(&mut self, ends: ConnectionDetails) {
        if self.core.shared.telemetry.wants_details() {
            self.record.details = Some(Box::new(ends));
        }
    }

    fn opened(&self) {
        self.core.shard.connection_opened(&self.record);
    }

    fn close(mut self, flags: ResponseFlags) {
        self.end = Some(flags);
    }

    /// Carries the bytes both ways and counts them as they go.
    async fn carry<S, U>(&self, stream: &mut S, upstream: &mut U, limits: &TunnelLimits) -> ResponseFlags
    where
        S: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let ahead = (Bytes::new(), Bytes::new());
        let drain = self.core.drain.handle();
        tokio::select! {
            end = copy_bidirectional(stream, upstream, ahead, limits, drain, &self.moved) => flags_of(&end),
            never = self.report() => match never {},
        }
    }

    async fn report(&self) -> Infallible {
        loop {
            tokio::time::sleep(REPORTED_EVERY).await;
            let (received, sent) = (self.moved.a_to_b.get(), self.moved.b_to_a.get());
            let before = (self.reported.0.replace(received), self.reported.1.replace(sent));
            self.core.shard.connection_progress(&self.record, received - before.0, sent - before.1);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut record = self.record.clone();
        record.flags = record.flags.with(self.end.unwrap_or(ResponseFlags::LOCAL_RESET));
        record.duration = self.started.elapsed();
        (record.bytes_received, record.bytes_sent) = (self.moved.a_to_b.get(), self.moved.b_to_a.get());
        self.core.shard.connection_closed(record, (self.reported.0.get(), self.reported.1.get()));
    }
}

/// A connection of our application to a service.
pub(crate) async fn outbound(core: &Rc<Core>, stream: &mut TcpStream, dialled: SocketAddr) {
    let _busy = Busy::new(&core.shared);
    let mut tables = core.shared.tables.load_full();
    let Outbound::Known(known) = tables.outbound_by_address(dialled.ip(), dialled.port()) else { return };
    let (service, port) = (known.entry.service.clone(), known.port.port);
    core.uses(&service);
    if known.loaded.is_none() {
        match core.shared.demand.load(&service).await {
            Demanded::Loaded => tables = core.shared.tables.load_full(),
            Demanded::NotFound | Demanded::Unanswered => {
                tracing::debug!(%service, "its configuration has not arrived; the connection is closed");
                return;
            }
        }
    }
    let Some(loaded) = tables.loaded(&service, port) else { return };
    let sni = if loaded.routes.tcp.needs_sni() {
        crate::detect::server_name(stream).await.ok().flatten()
    } else {
        None
    };
    let facts = TcpFacts { sni: sni.as_deref(), destination: Some(dialled.ip()) };
    let routes = loaded.routes.clone();
    carry(core, &tables, &routes.tcp, &facts, stream, Some(dialled), policy::admit_outbound()).await;
}

/// A connection at a gateway's TCP or TLS listener.
pub(crate) async fn edge<S>(
    core: &Rc<Core>,
    tables: &Arc<Tables>,
    table: &TcpTable,
    connection: &EdgeConnection,
    stream: &mut S,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _busy = Busy::new(&core.shared);
    let arrival = connection.arrival(core);
    let admitted = match tables.inbound().map(|inbound| policy::admit_bytes(core, inbound, &arrival)) {
        Some(Ok(admitted)) => admitted,
        Some(Err((id, _))) => {
            tracing::info!(remote = %connection.remote, id, "a connection is refused by a policy");
            return;
        }
        None => {
            tracing::debug!("the gateway's policies have not arrived; the connection is closed");
            return;
        }
    };
    let facts = TcpFacts { sni: connection.sni.as_deref(), destination: None };
    tokio::select! {
        () = carry(core, tables, table, &facts, stream, None, admitted) => {}
        () = until_not(core, |inbound| policy::still_admitted(inbound, &arrival)) => {
            tracing::info!(remote = %connection.remote, "a change of policy closes a connection");
        }
    }
}

async fn carry<S>(
    core: &Rc<Core>,
    tables: &Arc<Tables>,
    table: &TcpTable,
    facts: &TcpFacts<'_>,
    stream: &mut S,
    dialled: Option<SocketAddr>,
    admitted: Admitted,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Admitted { .. } = admitted;
    let TcpOutcome::Forward { distribution, .. } = route_tcp(table, tables.me(), facts, &mut NoTrace) else {
        tracing::debug!("no TCP route matches; the connection is closed");
        return;
    };
    let roll = u64::from(core.roll()) << 32 | u64::from(core.roll());
    let Some(backend) = distribution.pick(roll) else { return };
    let BackendState::Ready(ready) = tables.backend(&backend.target) else {
        tracing::debug!(backend = %backend.origin, "the backend does not resolve; the connection is closed");
        return;
    };
    let target = core.targets.get(core, tables, &ready);
    let me = core.me();
    let mut tried = Vec::new();
    let mut flag = ResponseFlags::NO_HEALTHY_UPSTREAM;
    for _ in 0..TRIES {
        let rolls = (core.roll(), core.roll());
        let choice = Choice { key: None, rolls, now: core.shared.clock(), tried: &tried, dialled };
        let Some(position) = target.cluster.choose(choice) else { break };
        tried.push(position);
        let peer = target.cluster.peer(position);
        let meta = target.peer_meta(peer.endpoint());
        match dial(core, &target, position).await {
            Ok((address, mut upstream, _slot)) => {
                let _in_flight = InFlight::on(&peer.health);
                target.cluster.health.report(&peer.health, Outcome::Status(200), None, core.shared.clock());
                let mut open = Open::new(core, Reporter::Source, me.meta.clone(), meta, target.meta.clone());
                open.ends(ConnectionDetails {
                    upstream_host: Some(address),
                    upstream_cluster: Some(target.name.clone()),
                    upstream_local: upstream.local(),
                    downstream_local: dialled,
                    server_name: facts.sni.map(Into::into),
                    ..ConnectionDetails::default()
                });
                open.opened();
                let idle = target.limits.tcp_idle_timeout.duration();
                let limits = TunnelLimits { idle, ..TunnelLimits::default() };
                let flags = open.carry(stream, &mut upstream, &limits).await;
                return open.close(flags);
            }
            Err(HopError::Connect(error)) => {
                tracing::debug!(%error, upstream = %target.name, "connection attempt failed");
                let policy = target.cluster.policy.outlier.as_ref();
                target.cluster.health.report(
                    &peer.health,
                    Outcome::ConnectFailed,
                    policy,
                    core.shared.clock(),
                );
            }
            Err(error) => {
                tracing::debug!(?error, upstream = %target.name, "the connection is closed");
                flag = ResponseFlags::UPSTREAM_OVERFLOW;
                break;
            }
        }
        flag = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    }
    let open = Open::new(core, Reporter::Source, me.meta, PeerMeta::unknown(), target.meta.clone());
    open.opened();
    open.close(flag);
}

/// A connection to an endpoint with its address, and the place that it takes among those to the destination.
async fn dial(core: &Core, target: &Target, position: usize) -> Result<(SocketAddr, Stream, Slot), HopError> {
    let hop = hop_to(core, target, position, Version::H1).await.map_err(HopError::Connect)?;
    let slot = take_slot(&hop).ok_or(HopError::Overflow)?;
    let endpoint = target.cluster.peer(position).endpoint();
    let security = match hop.security {
        Security::Mesh { .. } => {
            target.security(core, endpoint, preface::ALPN_TCP).map_err(HopError::Connect)?
        }
        other => other,
    };
    let stream = connect(hop.key.address, &security, hop.within).await.map_err(HopError::Connect)?;
    Ok((hop.key.address, stream, slot))
}

/// A connection to our application.
pub(crate) async fn inbound<S>(core: &Rc<Core>, connection: &InboundConnection, stream: &mut S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _busy = Busy::new(&core.shared);
    let me = core.me();
    let mut open = Open::new(
        core,
        Reporter::Destination,
        connection.source.clone(),
        me.meta,
        connection.service.clone(),
    );
    open.record.security =
        if connection.peer.is_some() { ConnectionSecurity::MutualTls } else { ConnectionSecurity::None };
    let address = core.shared.bootstrap.app_socket(connection.local, connection.port);
    open.ends(ConnectionDetails {
        upstream_host: Some(address),
        upstream_cluster: Some(inbound_cluster(connection.port)),
        downstream_local: Some(SocketAddr::new(connection.local, connection.port)),
        downstream_remote: Some(connection.remote),
        server_name: connection.sni.clone(),
        ..ConnectionDetails::default()
    });
    open.opened();
    let tables = core.shared.tables.load_full();
    let admitted = tables.inbound().map(|inbound| policy::admit_bytes(core, inbound, &connection.arrival()));
    match admitted {
        Some(Ok(Admitted { .. })) => {}
        Some(Err((id, _))) => {
            open.record.denial = Some(id.into());
            open.record.details_code = "rbac_access_denied".into();
            return open.close(ResponseFlags::NONE);
        }
        None => return open.close(ResponseFlags::NO_FILTER_CONFIG_FOUND),
    }
    let mut app = match connect(address, &Security::Plain, Duration::from_secs(5)).await {
        Ok(app) => app,
        Err(error) => {
            tracing::debug!(%error, "the application does not answer");
            return open.close(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        }
    };
    if let Some(details) = &mut open.record.details {
        details.upstream_local = app.local();
    }
    let limits = TunnelLimits::default();
    let ended = tokio::select! {
        flags = open.carry(stream, &mut app, &limits) => Some(flags),
        () = until_refused(core, connection) => None,
    };
    if ended.is_none() {
        open.record.details_code = "rbac_access_denied".into();
    }
    open.close(ended.unwrap_or(ResponseFlags::LOCAL_RESET));
}

/// Ends when policy or the mTLS mode would refuse the connection.
async fn until_refused(core: &Core, connection: &InboundConnection) {
    let admitted = |inbound: &leno_decide::Inbound| {
        let rule = inbound.port(connection.port);
        let mode = leno_decide::admit_connection(&rule, connection.peer.is_some(), &mut NoTrace);
        mode == leno_decide::Admission::Admit && policy::still_admitted(inbound, &connection.arrival())
    };
    until_not(core, admitted).await;
}

/// A connection to an address that the mesh does not know.
pub(crate) async fn past(core: &Rc<Core>, stream: &mut TcpStream, dialled: SocketAddr) {
    let _busy = Busy::new(&core.shared);
    let service = Arc::new(ServiceMeta {
        host: "PassthroughCluster".into(),
        name: "PassthroughCluster".into(),
        namespace: "".into(),
    });
    let open = Open::new(core, Reporter::Source, core.me().meta, PeerMeta::unknown(), service);
    open.opened();
    match connect(dialled, &Security::Plain, Duration::from_secs(10)).await {
        Ok(mut upstream) => {
            let flags = open.carry(stream, &mut upstream, &TunnelLimits::default()).await;
            open.close(flags);
        }
        Err(_) => open.close(ResponseFlags::UPSTREAM_CONNECTION_FAILURE),
    }
}

/// Mesh mTLS that goes through to a peer of this network, by the name on its handshake. Nothing is decrypted here.
pub(crate) async fn through(core: &Rc<Core>, tables: &Arc<Tables>, stream: &mut TcpStream) {
    let _busy = Busy::new(&core.shared);
    let Ok(Some(name)) = crate::detect::server_name(stream).await else { return };
    let Some(Called { port, host, pod }) = preface::parse_sni(&name) else { return };
    let Some(service) = service_of(tables, host, port) else {
        tracing::debug!(name, "no such service; the connection is closed");
        return;
    };
    let target = leno_model::BackendTarget::Service { service: service.clone(), port, subset: None };
    let mut current = tables.clone();
    if !current.is_loaded(&service) {
        if core.shared.demand.load(&service).await != Demanded::Loaded {
            return;
        }
        current = core.shared.tables.load_full();
    }
    let BackendState::Ready(ready) = current.backend(&target) else { return };
    let target = core.targets.get(core, &current, &ready);
    let mut tried = Vec::new();
    for _ in 0..TRIES {
        let rolls = (core.roll(), core.roll());
        let choice = Choice { key: None, rolls, now: core.shared.clock(), tried: &tried, dialled: None };
        // The client has chosen, by subset, hash or health: it shall have this pod or none.
        let chosen = match pod {
            Some(pod) => target.cluster.of_pod(pod).filter(|position| !tried.contains(position)),
            None => target.cluster.choose(choice),
        };
        let Some(position) = chosen else { return };
        tried.push(position);
        let endpoint = target.cluster.peer(position).endpoint();
        // Only what is in this network: what leaves through another gateway would go in circles.
        if endpoint.tunnel != leno_model::Tunnel::Mesh {
            continue;
        }
        let address = SocketAddr::new(endpoint.address, crate::bootstrap::MESH_PORT);
        if let Ok(mut upstream) = connect(address, &Security::Plain, target.within(position)).await {
            let (ahead, drain, limits) =
                ((Bytes::new(), Bytes::new()), core.drain.handle(), TunnelLimits::default());
            copy_bidirectional(stream, &mut upstream, ahead, &limits, drain, &Moved::default()).await;
            return;
        }
    }
}

fn service_of(tables: &Tables, host: &str, port: u16) -> Option<ServiceId> {
    match tables.outbound_by_host(host, port) {
        Outbound::Known(known) => Some(known.entry.service.clone()),
        Outbound::NoSuchPort(_) | Outbound::Hidden(_) | Outbound::Unknown => None,
    }
}

fn flags_of(end: &TunnelEnd) -> ResponseFlags {
    match end.reason {
        TunnelReason::Closed => ResponseFlags::NONE,
        TunnelReason::Idle => ResponseFlags::STREAM_IDLE_TIMEOUT,
        _ => ResponseFlags::LOCAL_RESET,
    }
}
