//! The pipelines of requests: outbound (our application calls), inbound (a peer calls our application), edge (a gateway).
//!
//! Each reads top-down as the steps of DESIGN's data path. Every other file of the crate is one of their lines.
//! Invariant: one snapshot of the tables for each request; the path that is decided upon is the path that is sent on.

use std::{
    borrow::Cow,
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version as HttpVersion,
    uri::PathAndQuery,
};
use leno_decide::{
    DenyReason, Forward, Headers, NoTrace, Outbound, RequestFacts, RouteOutcome, Tables, route,
};
use leno_model::{GatewayProtocol, GatewayTls, Listener, Protocol, ServiceId};
use leno_telemetry::{ConnectionSecurity, PeerMeta, Reporter, ResponseFlags, ServiceMeta, Step};

use crate::{
    config::demand::Demanded,
    core::Core,
    forward::{
        application,
        attempts::{Carried, carry, edit},
        pool::Version,
    },
    http::{
        Body, hop,
        path::{PathPolicy, normalise},
    },
    policy::{self, Arrival},
    preface,
    record::{Ends, OpenRecord},
    respond,
    standing::{Asked, Standing},
};

/// An outbound connection of our application: what it dialled.
pub(crate) struct OutboundConnection {
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Our end.
    pub(crate) local: SocketAddr,
    /// The address, as PROXY protocol or capture told; `None` for an HTTP proxy's client, which names hosts.
    pub(crate) dialled: Option<SocketAddr>,
}

/// A connection to our application.
pub(crate) struct InboundConnection {
    /// The verified peer; `None` in plaintext.
    pub(crate) peer: Option<leno_model::SpiffeId>,
    /// What the peer's proxy says of its workload.
    pub(crate) source: Arc<PeerMeta>,
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// The address that was dialled.
    pub(crate) local: IpAddr,
    /// The workload's port.
    pub(crate) port: u16,
    /// The service that was called.
    pub(crate) service: Arc<ServiceMeta>,
    /// The name in the handshake.
    pub(crate) sni: Option<Arc<str>>,
    /// Nanoseconds of overhead that the peer has not been told of yet.
    pub(crate) owed: Rc<Cell<u64>>,
}

/// A connection to a gateway's listener.
pub(crate) struct EdgeConnection {
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Our end.
    pub(crate) local: SocketAddr,
    /// The listener's port.
    pub(crate) port: u16,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The listener that the handshake chose.
    pub(crate) listener: Option<Chosen>,
    /// The name in the handshake.
    pub(crate) sni: Option<Arc<str>>,
}

/// The listener that a handshake was for, as it was then.
pub(crate) struct Chosen {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// The authority that the client's certificate was verified against.
    pub(crate) client_ca: Option<Arc<str>>,
}

impl Chosen {
    /// Whether a listener is still the one that the handshake was for.
    fn is(&self, listener: &Listener) -> bool {
        let same = |settings: &GatewayTls| settings.client_ca == self.client_ca;
        listener.name == self.name && matches!(&listener.protocol, GatewayProtocol::Https(tls) if same(tls))
    }
}

/// A request of our application.
pub(crate) async fn outbound(
    core: &Rc<Core>,
    connection: &OutboundConnection,
    mut request: Request<Body>,
) -> Response<Body> {
    let me = core.me();
    hop::prepare_request(request.headers_mut(), true);
    preface::strip(request.headers_mut());
    identify_request(core, request.headers_mut());
    let ends = Ends {
        reporter: Reporter::Source,
        source: me.meta.clone(),
        destination: PeerMeta::unknown(),
        service: ServiceMeta::unknown(),
        security: ConnectionSecurity::Unknown,
    };
    let mut record = OpenRecord::open(core, ends, &request);
    record.trace(request.headers_mut());
    record.came_by(connection.remote, connection.dialled.unwrap_or(connection.local), None);
    let response = match outbound_route(core, connection, request, &mut record).await {
        Ok(response) | Err(response) => response,
    };
    let (mut parts, body) = record.close_with(response).into_parts();
    preface::strip(&mut parts.headers);
    Response::from_parts(parts, body)
}

async fn outbound_route(
    core: &Rc<Core>,
    connection: &OutboundConnection,
    mut request: Request<Body>,
    record: &mut OpenRecord,
) -> Result<Response<Body>, Response<Body>> {
    normalise_path(&mut request, record)?;
    let authority = hop::authority(request.headers()).unwrap_or_default().to_owned();
    let mut tables = core.shared.tables.load_full();
    let (service, port) = known_service(&tables, connection, &authority, &request, record)?;
    core.uses(&service);
    if tables.loaded(&service, port).is_none() {
        record.waited();
        tables = load(core, &service, &request, record).await?;
        record.waited();
    }
    let Some(loaded) = tables.loaded(&service, port) else {
        record.outcome(ResponseFlags::NO_FILTER_CONFIG_FOUND, "service_not_loaded");
        return Err(respond::plain(
            &request,
            StatusCode::SERVICE_UNAVAILABLE,
            "the service's configuration has not arrived",
        ));
    };
    record.step(Step::Parse);
    let routes = loaded.routes.clone();
    let facts = RouteFacts {
        scheme: "http",
        port,
        source: core.shared.bootstrap.address,
        dialled: connection.dialled,
    };
    decide_and_carry(core, &tables, &routes.http, facts, request, record).await
}

/// The service that was dialled or named.
fn known_service(
    tables: &Tables,
    connection: &OutboundConnection,
    authority: &str,
    request: &Request<Body>,
    record: &mut OpenRecord,
) -> Result<(ServiceId, u16), Response<Body>> {
    let found = match connection.dialled {
        Some(dialled) => tables.outbound_by_address(dialled.ip(), dialled.port()),
        None => {
            let port = leno_decide::facts::port_of(authority).unwrap_or(80);
            tables.outbound_by_host(leno_decide::facts::host_of(authority), port)
        }
    };
    match found {
        Outbound::Known(known) => Ok((known.entry.service.clone(), known.port.port)),
        Outbound::NoSuchPort(entry) => {
            record.outcome(ResponseFlags::NO_ROUTE, "route_not_found");
            Err(respond::plain(
                request,
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("{} has no such port", entry.service.host),
            ))
        }
        Outbound::Hidden(_) | Outbound::Unknown => {
            record.outcome(ResponseFlags::NO_ROUTE, "route_not_found");
            Err(respond::plain(request, StatusCode::BAD_GATEWAY, "no such service"))
        }
    }
}

/// Has a service loaded on first use.
async fn load(
    core: &Rc<Core>,
    service: &ServiceId,
    request: &Request<Body>,
    record: &mut OpenRecord,
) -> Result<Arc<Tables>, Response<Body>> {
    match core.shared.demand.load(service).await {
        Demanded::Loaded => Ok(core.shared.tables.load_full()),
        Demanded::NotFound => {
            record.outcome(ResponseFlags::NO_CLUSTER, "cluster_not_found");
            Err(respond::plain(
                request,
                StatusCode::BAD_GATEWAY,
                "the service does not exist for this workload",
            ))
        }
        Demanded::Unanswered => {
            record.outcome(ResponseFlags::NO_FILTER_CONFIG_FOUND, "service_not_loaded");
            Err(respond::plain(
                request,
                StatusCode::SERVICE_UNAVAILABLE,
                "the service's configuration did not arrive in time",
            ))
        }
    }
}

/// A request of a client outside the mesh, at a gateway.
pub(crate) async fn edge(
    core: &Rc<Core>,
    connection: &Rc<EdgeConnection>,
    mut request: Request<Body>,
) -> Response<Body> {
    let me = core.me();
    hop::prepare_request(request.headers_mut(), true);
    believe_nothing(request.headers_mut(), connection.remote.ip(), connection.scheme);
    identify_request(core, request.headers_mut());
    let ends = Ends {
        reporter: Reporter::Source,
        source: me.meta.clone(),
        destination: PeerMeta::unknown(),
        service: ServiceMeta::unknown(),
        security: ConnectionSecurity::Unknown,
    };
    let mut record = OpenRecord::open(core, ends, &request);
    record.trace(request.headers_mut());
    record.came_by(connection.remote, connection.local, connection.sni.as_ref());
    let response = match edge_route(core, connection, request, &mut record).await {
        Ok(response) | Err(response) => response,
    };
    let (mut parts, body) = record.close_with(response).into_parts();
    preface::strip(&mut parts.headers);
    Response::from_parts(parts, body)
}

async fn edge_route(
    core: &Rc<Core>,
    connection: &Rc<EdgeConnection>,
    mut request: Request<Body>,
    record: &mut OpenRecord,
) -> Result<Response<Body>, Response<Body>> {
    normalise_path(&mut request, record)?;
    let standing = Standing::new(core, Asked::Edge(connection.clone()), &request);
    let tables = core.shared.tables.load_full();
    let not_found = |record: &mut OpenRecord, request: &Request<Body>| {
        record.outcome(ResponseFlags::NO_ROUTE, "route_not_found");
        respond::plain(request, StatusCode::NOT_FOUND, "no route for this host")
    };
    let Some(gateway) = tables.gateway().cloned() else { return Err(not_found(record, &request)) };
    let authority = hop::authority(request.headers()).unwrap_or_default().to_owned();
    let host = leno_decide::facts::host_of(&authority);
    let misdirected = |record: &mut OpenRecord, request: &Request<Body>| {
        record.outcome(ResponseFlags::NO_ROUTE, "misdirected_request");
        let message = "this connection is for another host";
        respond::plain(request, StatusCode::MISDIRECTED_REQUEST, message)
    };
    let accepted = match &connection.listener {
        None => None,
        Some(chosen) => {
            let mut listeners = gateway.listeners(connection.port).iter().map(|table| &table.listener);
            // A listener that is gone, or that asks for more than this client has shown, is nobody's leave to reach the others.
            match listeners.find(|listener| chosen.is(listener)) {
                Some(listener) => Some(listener),
                None => return Err(misdirected(record, &request)),
            }
        }
    };
    record.step(Step::Parse);
    edge_admit(core, &tables, connection, &request, record)?;
    match gateway.select_host(connection.port, accepted, host) {
        leno_decide::HostSelection::Routes { listener, .. }
            if accepted.is_none() && listener.listener.protocol != GatewayProtocol::Http =>
        {
            Err(misdirected(record, &request))
        }
        leno_decide::HostSelection::Routes { listener, routes, .. } => {
            if listener.listener.https_redirect && connection.scheme == "http" {
                let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
                record.outcome(ResponseFlags::NONE, "direct_response");
                return Ok(respond::redirect(301, &format!("https://{host}{path}")));
            }
            let facts = RouteFacts {
                scheme: connection.scheme,
                port: connection.port,
                source: connection.remote.ip(),
                dialled: None,
            };
            let carried = async {
                match decide_and_carry(core, &tables, routes, facts, request, &mut *record).await {
                    Ok(response) | Err(response) => response,
                }
            };
            match standing.while_it_holds(carried).await {
                Ok(response) => Ok(response),
                Err((refused, id, by)) => Err(refuse(&refused, &id, &by, record)),
            }
        }
        leno_decide::HostSelection::Misdirected(_) => Err(misdirected(record, &request)),
        leno_decide::HostSelection::NotFound(_) => Err(not_found(record, &request)),
    }
}

/// The policies that select the gateway itself.
fn edge_admit(
    core: &Core,
    tables: &Tables,
    connection: &EdgeConnection,
    request: &Request<Body>,
    record: &mut OpenRecord,
) -> Result<(), Response<Body>> {
    let Some(inbound) = tables.inbound() else {
        record.outcome(ResponseFlags::NO_FILTER_CONFIG_FOUND, "policies_not_loaded");
        let message = "the gateway's policies have not arrived";
        return Err(respond::plain(request, StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let headers = HeaderFacts(request.headers());
    let facts = request_facts(request, &headers, connection.scheme);
    let arrival = connection.arrival(core);
    match policy::admit_request(core, inbound, &arrival, &facts) {
        Ok(_) => Ok(()),
        Err((id, by)) => Err(refuse(request, &id, &by, record)),
    }
}

impl EdgeConnection {
    /// The facts that policies look at.
    pub(crate) fn arrival(&self, core: &Core) -> Arrival<'_> {
        Arrival {
            peer: None,
            remote: self.remote,
            client_ip: self.remote.ip(),
            local: core.shared.bootstrap.address,
            port: self.port,
            sni: self.sni.as_deref(),
        }
    }
}

/// Answers a request that policy refused.
fn refuse<B>(request: &Request<B>, id: &str, by: &DenyReason, record: &mut OpenRecord) -> Response<Body> {
    let policy = by.policy().filter(|_| !matches!(by, DenyReason::NothingAllows(_)));
    let matched = policy.map_or_else(
        || "none".to_owned(),
        |policy| {
            let (namespace, name) = policy.split_once('/').unwrap_or(("", policy));
            let rule = by.rule().map_or_else(String::new, |rule| format!("-rule[{rule}]"));
            format!("ns[{namespace}]-policy[{name}]{rule}")
        },
    );
    record.outcome(ResponseFlags::NONE, format!("rbac_access_denied_matched_policy[{matched}]"));
    if let Some(details) = record.details() {
        details.denial = Some(id.into());
    }
    respond::denied(request, id)
}

/// What policies and routes look at.
pub(crate) fn request_facts<'r, B>(
    request: &'r Request<B>,
    headers: &'r HeaderFacts<'r>,
    scheme: &'r str,
) -> RequestFacts<'r> {
    RequestFacts {
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query(),
        scheme,
        authority: hop::authority(request.headers()).unwrap_or_default(),
        headers,
        remote_ip: None,
    }
}

/// What routing needs to know besides the request.
struct RouteFacts {
    scheme: &'static str,
    port: u16,
    source: IpAddr,
    dialled: Option<SocketAddr>,
}

async fn decide_and_carry(
    core: &Rc<Core>,
    tables: &Arc<Tables>,
    table: &leno_decide::HttpTable,
    facts: RouteFacts,
    mut request: Request<Body>,
    record: &mut OpenRecord,
) -> Result<Response<Body>, Response<Body>> {
    let headers = HeaderFacts(request.headers());
    let request_facts = request_facts(&request, &headers, facts.scheme);
    let outcome = route::route(table, tables.me(), &request_facts, facts.port, &mut NoTrace);
    record.step(Step::Route);
    let forward = match outcome {
        RouteOutcome::Forward(forward) => forward,
        RouteOutcome::Redirect { rule, status, location } => {
            name_route(record, &rule.name);
            record.outcome(ResponseFlags::NONE, "direct_response");
            let mut response = respond::redirect(status, &location);
            edit(response.headers_mut(), &rule.response_headers);
            return Ok(response);
        }
        RouteOutcome::Respond { rule, status, body } => {
            name_route(record, &rule.name);
            record.outcome(ResponseFlags::NONE, "direct_response");
            let mut response = respond::direct(status, body);
            edit(response.headers_mut(), &rule.response_headers);
            return Ok(response);
        }
        RouteOutcome::Fail { rule, status, reason } => {
            name_route(record, &rule.name);
            record.outcome(ResponseFlags::NO_CLUSTER, "cluster_not_found");
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            if let Some(details) = record.details() {
                details.upstream_transport_failure = Some(reason.into());
            }
            let words = core.shared.words(reason, respond::NO_BACKEND);
            return Err(respond::plain(&request, status, words));
        }
        RouteOutcome::NoRoute => {
            record.outcome(ResponseFlags::NO_ROUTE, "route_not_found");
            return Err(respond::plain(&request, StatusCode::NOT_FOUND, "no route matches"));
        }
    };
    name_route(record, &forward.rule.name);
    inject_fault(core, &forward, &request, record).await?;
    rewrite(&forward, &mut request);
    let version = wanted_version(facts.scheme, &request);
    let rule = forward.rule.clone();
    record.step(Step::Policy);
    let carried = Carried {
        admitted: policy::admit_outbound(),
        forward,
        tables,
        request,
        version,
        source: facts.source,
        dialled: facts.dialled,
    };
    let mut response = Box::pin(carry(core, carried, record)).await;
    edit(response.headers_mut(), &rule.response_headers);
    Ok(response)
}

async fn inject_fault(
    core: &Rc<Core>,
    forward: &Forward<'_>,
    request: &Request<Body>,
    record: &mut OpenRecord,
) -> Result<(), Response<Body>> {
    let Some(fault) = &forward.rule.fault else { return Ok(()) };
    let outcome = route::fault(fault, u64::from(core.roll()) << 32, u64::from(core.roll()) << 32);
    if let Some(delay) = outcome.delay {
        tokio::time::sleep(delay.duration()).await;
        record.waited();
        record.outcome(ResponseFlags::DELAY_INJECTED, "via_upstream");
    }
    match outcome.abort {
        None => Ok(()),
        Some(with) => {
            record.outcome(ResponseFlags::FAULT_INJECTED, "fault_filter_abort");
            Err(respond::abort(request, with))
        }
    }
}

fn rewrite(forward: &Forward<'_>, request: &mut Request<Body>) {
    if let Some(path) = forward.path(request.uri().path()) {
        let target = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let original =
            request.uri().path_and_query().and_then(|path| HeaderValue::try_from(path.as_str()).ok());
        if let Ok(target) = target.parse() {
            *request.uri_mut() = target;
            if let Some(original) = original {
                request.headers_mut().insert("x-envoy-original-path", original);
            }
        }
    }
    if let Some(authority) = &forward.rule.rewrite.authority
        && let Ok(authority) = HeaderValue::try_from(&**authority)
    {
        request.headers_mut().insert(http::header::HOST, authority);
    }
}

/// A request to our application.
pub(crate) async fn inbound(
    core: &Rc<Core>,
    connection: &Rc<InboundConnection>,
    mut request: Request<Body>,
) -> Response<Body> {
    let me = core.me();
    hop::prepare_request(request.headers_mut(), true);
    match &connection.peer {
        Some(peer) => say_who(request.headers_mut(), peer, &core.shared),
        None => {
            believe_nothing(request.headers_mut(), connection.remote.ip(), "http");
            preface::strip(request.headers_mut());
        }
    }
    identify_request(core, request.headers_mut());
    let ends = Ends {
        reporter: Reporter::Destination,
        source: connection.source.clone(),
        destination: me.meta.clone(),
        service: connection.service.clone(),
        security: if connection.peer.is_some() {
            ConnectionSecurity::MutualTls
        } else {
            ConnectionSecurity::None
        },
    };
    let mut record = OpenRecord::open(core, ends, &request);
    record.trace(request.headers_mut());
    let local = SocketAddr::new(connection.local, connection.port);
    record.came_by(connection.remote, local, connection.sni.as_ref());
    let mut response = match inbound_admit(core, connection, request, &mut record).await {
        Ok(response) | Err(response) => response,
    };
    if connection.peer.is_some() {
        let micros = record.announce(&connection.owed);
        response.headers_mut().insert(HeaderName::from_static(preface::OVERHEAD), HeaderValue::from(micros));
        if core.drain.is_started() {
            response.headers_mut().insert(preface::LEAVING, HeaderValue::from_static("1"));
        }
    } else {
        preface::strip(response.headers_mut());
    }
    record.close_with(response)
}

async fn inbound_admit(
    core: &Rc<Core>,
    connection: &Rc<InboundConnection>,
    mut request: Request<Body>,
    record: &mut OpenRecord,
) -> Result<Response<Body>, Response<Body>> {
    normalise_path(&mut request, record)?;
    record.step(Step::Parse);
    let standing = Standing::new(core, Asked::Inbound(connection.clone()), &request);
    let tables = core.shared.tables.load_full();
    let Some(inbound) = tables.inbound() else {
        let mut response = respond::plain(
            &request,
            StatusCode::SERVICE_UNAVAILABLE,
            "the workload's policies have not arrived",
        );
        respond::mark_not_delivered(&mut response);
        record.outcome(ResponseFlags::NO_FILTER_CONFIG_FOUND, "policies_not_loaded");
        return Err(response);
    };
    let headers = HeaderFacts(request.headers());
    let facts = request_facts(&request, &headers, "http");
    let arrival = connection.arrival();
    let admitted = match policy::admit_request(core, inbound, &arrival, &facts) {
        Ok(admitted) => admitted,
        Err((id, by)) => return Err(refuse(&request, &id, &by, record)),
    };
    let protocol = inbound.port(connection.port).protocol;
    record.step(Step::Policy);
    let version = application_version(protocol, &request);
    let dialled = (connection.local, connection.port);
    let carried = application::carry(core, admitted, dialled, version, request, record);
    match standing.while_it_holds(carried).await {
        Ok(response) => Ok(response),
        Err((refused, id, by)) => Err(refuse(&refused, &id, &by, record)),
    }
}

impl InboundConnection {
    /// The facts that policies look at.
    pub(crate) fn arrival(&self) -> Arrival<'_> {
        Arrival {
            peer: self.peer.as_ref(),
            remote: self.remote,
            client_ip: self.remote.ip(),
            local: self.local,
            port: self.port,
            sni: self.sni.as_deref(),
        }
    }
}

/// The version that a client wants of the server. HTTP/2 that it negotiated in a gateway's TLS is between the two: it says
/// nothing of the server, unless what it sends exists in HTTP/2 only.
fn wanted_version(scheme: &str, request: &Request<Body>) -> Version {
    let negotiated = scheme == "https";
    match request.version() {
        HttpVersion::HTTP_2 if !negotiated || is_grpc(request) => Version::H2,
        _ => Version::H1,
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// HTTP/2 to the application only for gRPC, a declared protocol, or prior knowledge on an undeclared port.
fn application_version(protocol: Protocol, request: &Request<Body>) -> Version {
    let came_by_h2 = request.version() == HttpVersion::HTTP_2;
    let grpc = is_grpc(request);
    match protocol {
        Protocol::Http2 | Protocol::Grpc => Version::H2,
        Protocol::Http1 if grpc && came_by_h2 => Version::H2,
        Protocol::Http1 => Version::H1,
        Protocol::Detect | Protocol::Tcp | Protocol::Tls if came_by_h2 => Version::H2,
        Protocol::Detect | Protocol::Tcp | Protocol::Tls => Version::H1,
    }
}

/// One normalisation, before any decision (docs/adr). What has no path, CONNECT, is refused: a tunnel to wherever a client
/// names would pass every policy that speaks of paths.
fn normalise_path(request: &mut Request<Body>, record: &mut OpenRecord) -> Result<(), Response<Body>> {
    if request.method() == Method::CONNECT {
        record.outcome(ResponseFlags::NONE, "connect_refused");
        let mut response = respond::plain(request, StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served");
        // RFC 9110 10.2.1: empty, for no method is allowed on an authority.
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(""));
        return Err(response);
    }
    let Some(target) = request.uri().path_and_query() else { return Ok(()) };
    if target.as_str() == "*" {
        return Ok(());
    }
    let refused = |record: &mut OpenRecord, request: &Request<Body>, why: &str| {
        record.outcome(ResponseFlags::INVALID_HEADERS, "path_normalization_failed");
        respond::plain(request, StatusCode::BAD_REQUEST, why)
    };
    match normalise(target.as_str(), &PathPolicy::default()) {
        Ok(Cow::Borrowed(_)) => Ok(()),
        Ok(Cow::Owned(path)) => match path.parse() {
            Ok(uri) => {
                *request.uri_mut() = uri;
                Ok(())
            }
            Err(_) => Err(refused(record, request, "the path is malformed")),
        },
        Err(error) => Err(refused(record, request, &error.to_string())),
    }
}

fn name_route(record: &mut OpenRecord, name: &Arc<str>) {
    if let Some(details) = record.details() {
        details.route_name = Some(name.clone());
    }
}

/// Gives a request an id, once, at the first proxy it passes.
fn identify_request(core: &Core, headers: &mut HeaderMap) {
    if !headers.contains_key("x-request-id")
        && let Ok(id) = HeaderValue::try_from(leno_telemetry::trace_context::request_id(core.random_bytes()))
    {
        headers.insert("x-request-id", id);
    }
}

/// What a client outside the mesh says about where it comes from is not believed.
fn believe_nothing(headers: &mut HeaderMap, client: IpAddr, scheme: &'static str) {
    const CLAIMS: [&str; 7] = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
        "x-real-ip",
        "x-forwarded-client-cert",
    ];
    for name in CLAIMS {
        headers.remove(name);
    }
    // Envoy's own: what one proxy says to another, and what one may ask of it (retries, timeouts).
    let envoy: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-envoy-")).cloned().collect();
    for name in envoy {
        headers.remove(name);
    }
    preface::strip(headers);
    if let Ok(value) = HeaderValue::try_from(client.to_canonical().to_string()) {
        headers.insert("x-forwarded-for", value);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
}

/// Tells the application who called (XFCC), whatever the caller said.
fn say_who(headers: &mut HeaderMap, peer: &leno_model::SpiffeId, shared: &crate::shared::Shared) {
    let by = shared.identity.certificate();
    let by = by.as_ref().map_or("", |own| own.spiffe_id().as_str());
    if let Ok(value) = HeaderValue::try_from(format!("By={by};URI={peer}")) {
        headers.insert("x-forwarded-client-cert", value);
    }
}

/// A header map as decisions see it.
pub(crate) struct HeaderFacts<'h>(pub(crate) &'h HeaderMap);

impl Headers for HeaderFacts<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = values.next()?;
        match values.next() {
            None => Some(Cow::Borrowed(first)),
            Some(second) => {
                let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
                Some(Cow::Owned(all.join(&b',')))
            }
        }
    }
}
