//! One admitted request to a destination: attempts, retries, deadline, mirrors.
//!
//! Invariants: a request that may have reached the application is sent again only when its method is idempotent or the
//! rule's author asked for it; nothing is sent after the deadline; retries in flight stay within the budget.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use leno_decide::{
    AttemptOutcome, BackendState, Forward, Limits, NoRetry, Retry, Tables, hash_key, is_idempotent,
    is_sampled, pause, retry, room,
};
use leno_model::{Backend, BackendTarget, HashKey, HeaderEdits, LoadBalancer, Tunnel};
use leno_telemetry::{ResponseFlags, Step, metrics::names};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    connect::{ConnectError, Security, address_of, resolve},
    exchange::{Hop, HopError, exchange},
    guarded::{ending, holding, is_over},
    pool::{PoolKey, Slot, Version},
    replay::Replay,
    target::{IDLE, Target},
};
use crate::{
    balance::{
        cluster::{Choice, InFlight},
        health::Outcome,
    },
    bootstrap::Role,
    core::Core,
    http::{Body, BodyError, BodyStream, Delivery, SendFailure, hop},
    policy::Admitted,
    preface,
    record::OpenRecord,
    respond,
    turn::Meter,
};

/// An idle connection to a server without proxy is closed early, because such servers close theirs unannounced.
const IDLE_PLAIN: Duration = Duration::from_millis(1500);

/// So long may a request whose connection broke wait until others have been repeated.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// Largest body that is kept for a mirror.
const MIRRORED_BODY: usize = 1024 * 1024;

/// What is to be carried.
pub(crate) struct Carried<'a> {
    /// The proof that policy let it pass.
    pub(crate) admitted: Admitted,
    /// The rule and its split.
    pub(crate) forward: Forward<'a>,
    /// The tables that decided.
    pub(crate) tables: &'a Arc<Tables>,
    /// The request, its path already rewritten.
    pub(crate) request: Request<Body>,
    /// What the client speaks.
    pub(crate) version: Version,
    /// The client's address, for hashing.
    pub(crate) source: std::net::IpAddr,
    /// The address that the client dialled.
    pub(crate) dialled: Option<std::net::SocketAddr>,
}

/// Everything of one request that its attempts share.
struct Call<'a> {
    core: &'a Rc<Core>,
    carried: Carried<'a>,
    replay: Replay,
    deadline: Option<Instant>,
}

/// One attempt's end.
struct Tried {
    /// `None`: not worth another attempt whatever the policy says.
    outcome: Option<AttemptOutcome>,
    response: Response<Body>,
    flags: ResponseFlags,
    details: &'static str,
}

/// Carries a request and returns the response to give.
pub(crate) async fn carry(
    core: &Rc<Core>,
    mut carried: Carried<'_>,
    record: &mut OpenRecord,
) -> Response<Body> {
    let Admitted { .. } = carried.admitted;
    let timeout = carried.forward.rule.timeout.map(leno_model::Millis::duration);
    let told = preface::deadline(carried.request.headers());
    let limit = [timeout, told].into_iter().flatten().min();
    let body = std::mem::replace(carried.request.body_mut(), Body::empty());
    let body = mirror(core, &carried, body).await;
    if !carried.forward.rule.mirrors.is_empty() {
        // A copy waits for the client's body.
        record.waited();
    }
    let replay = Replay::new(record.count_request(body));
    let call = Call { core, carried, replay, deadline: limit.map(|limit| Instant::now() + limit) };
    match call.deadline {
        None => call.run(record).await,
        Some(deadline) => match tokio::time::timeout_at(deadline, call.run(record)).await {
            Ok(response) => bounded(response, deadline),
            Err(_) => {
                record.waited();
                record.outcome(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout");
                respond::timeout(&call.carried.request)
            }
        },
    }
}

impl Call<'_> {
    async fn run(&self, record: &mut OpenRecord) -> Response<Body> {
        let Some(backend) = self
            .carried
            .forward
            .distribution
            .pick(u64::from(self.core.roll()) << 32 | u64::from(self.core.roll()))
        else {
            return respond::plain(
                &self.carried.request,
                StatusCode::INTERNAL_SERVER_ERROR,
                "no backend has any weight",
            );
        };
        let ready = match self.carried.tables.backend(&backend.target) {
            BackendState::Ready(ready) => ready,
            BackendState::Unresolved { status, reason } => {
                record.outcome(ResponseFlags::NO_CLUSTER, "cluster_not_found");
                if let Some(details) = record.details() {
                    details.upstream_transport_failure = Some((&*reason).into());
                }
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let words = self.core.shared.words(&reason, respond::NO_BACKEND);
                return respond::plain(&self.carried.request, status, words);
            }
        };
        let target = self.core.targets.get(self.core, self.carried.tables, &ready);
        record.facts().service = target.meta.clone();
        if let Some(details) = record.details() {
            details.connection.upstream_cluster = Some(target.name.clone());
        }
        let health = target.cluster.health.clone();
        if health.requests.fetch_add(1, Relaxed) >= target.limits.max_requests {
            health.requests.fetch_sub(1, Relaxed);
            record.outcome(ResponseFlags::UPSTREAM_OVERFLOW, "overflow");
            return respond::overflow(&self.carried.request);
        }
        let counted = health.clone();
        let busy = Slot::new(move || _ = counted.requests.fetch_sub(1, Relaxed));
        let response = self.attempts(&target, backend, record).await;
        let (mut parts, body) = response.into_parts();
        edit(&mut parts.headers, &backend.response_headers);
        Response::from_parts(parts, holding(body, busy))
    }

    async fn attempts(
        &self,
        target: &Rc<Target>,
        backend: &Backend,
        record: &mut OpenRecord,
    ) -> Response<Body> {
        let mut tried = SmallVec::<[usize; 4]>::new();
        let mut attempt = 0_u8;
        let request = &self.carried.request;
        let idempotent =
            is_idempotent(request.method().as_str(), request.headers().contains_key("idempotency-key"));
        loop {
            let end = self.attempt(target, backend, &mut tried, record).await;
            record.facts().attempts += 1;
            let Retry::Yes { backoff } = self.again(target, idempotent, &end, attempt, record).await else {
                record.outcome(end.flags, end.details);
                return end.response;
            };
            if !self.replay.is_whole() {
                record.outcome(end.flags, end.details);
                return end.response;
            }
            drop(end.response);
            attempt += 1;
            let reason = end.outcome.map_or("none", |outcome| outcome_name(outcome));
            self.core.shared.telemetry.registry().counter(&names::RETRIES, [reason]).add(1);
            target.cluster.health.retries.fetch_add(1, Relaxed);
            let counted = target.cluster.health.clone();
            let _retrying = Slot::new(move || _ = counted.retries.fetch_sub(1, Relaxed));
            // An endpoint that said "not here" is answered at once by another one.
            if !matches!(end.outcome, Some(AttemptOutcome::NotDelivered | AttemptOutcome::NotSent)) {
                tokio::time::sleep(pause(backoff, u64::from(self.core.roll()) << 32).duration()).await;
                record.waited();
            }
        }
    }

    /// Whether an attempt's end is worth another one, once that is its turn.
    async fn again(
        &self,
        target: &Target,
        idempotent: bool,
        end: &Tried,
        retries: u8,
        record: &mut OpenRecord,
    ) -> Retry {
        let Some(outcome) = end.outcome else { return Retry::No(NoRetry::NotRetriable) };
        let policy = &self.carried.forward.rule.retry;
        let health = &target.cluster.health;
        let patience = Instant::now() + LONGEST_TURN;
        loop {
            let room = room(&target.limits, health.requests.load(Relaxed), health.retries.load(Relaxed));
            let backoff = match retry(policy, idempotent, outcome, retries, room) {
                Retry::Later { backoff } => backoff,
                decided => return decided,
            };
            if Instant::now() >= patience {
                return Retry::No(NoRetry::OverBudget);
            }
            let wait = pause(backoff, u64::from(self.core.roll()) << 32).duration();
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
            record.waited();
        }
    }

    async fn attempt(
        &self,
        target: &Rc<Target>,
        backend: &Backend,
        tried: &mut SmallVec<[usize; 4]>,
        record: &mut OpenRecord,
    ) -> Tried {
        let core = self.core;
        let choice = Choice {
            key: self.hash_key(target),
            rolls: (core.roll(), core.roll()),
            now: core.shared.clock(),
            tried,
            dialled: self.carried.dialled,
        };
        let Some(position) = target.cluster.choose(choice) else {
            return Tried {
                outcome: None,
                response: respond::plain(
                    &self.carried.request,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "no healthy upstream",
                ),
                flags: ResponseFlags::NO_HEALTHY_UPSTREAM,
                details: "no_healthy_upstream",
            };
        };
        tried.push(position);
        let peer = target.cluster.peer(position);
        let endpoint = peer.endpoint();
        record.facts().destination = target.peer_meta(endpoint);
        let in_flight = InFlight::on(&peer.health);
        let hop = hop_to(core, target, position, self.carried.version).await;
        if matches!(endpoint.tunnel, Tunnel::Dns { .. }) {
            record.waited();
        }
        let hop = match hop {
            Ok(hop) => hop,
            Err(error) => return self.failed(target, position, HopError::Connect(error), record),
        };
        if let Some(details) = record.details() {
            details.connection.upstream_host = Some(hop.key.address);
        }
        let request = self.request_for(backend, &hop);
        record.step(Step::Balance);
        let meter = Meter::default();
        let sending = exchange(core, &hop, request, &meter);
        let sent = match self.carried.forward.attempt_timeout(backend) {
            None => sending.await,
            Some(limit) => match tokio::time::timeout(limit.duration(), sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    record.exchanged(&meter);
                    self.report(target, position, Outcome::Status(504));
                    return Tried {
                        outcome: Some(AttemptOutcome::PerTryTimeout),
                        response: respond::timeout(&self.carried.request),
                        flags: ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
                        details: "upstream_per_try_timeout",
                    };
                }
            },
        };
        record.answered(&meter);
        match sent {
            Ok((response, local)) => {
                record.upstream_local(local);
                self.answered(target, position, response, in_flight)
            }
            Err(error) => self.failed(target, position, error, record),
        }
    }

    fn answered(
        &self,
        target: &Target,
        position: usize,
        response: Response<Body>,
        in_flight: InFlight,
    ) -> Tried {
        let (mut parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        // Only what came over the mesh's mTLS is a peer's word: a DestinationRule may have an endpoint spoken to in plaintext.
        let peer = !target.is_plain(target.cluster.peer(position).endpoint());
        let not_delivered = parts.headers.remove(preface::NOT_DELIVERED).is_some() && peer;
        let broken = parts.headers.remove(preface::BROKEN).is_some() && peer;
        let leaving = parts.headers.remove(preface::LEAVING).is_some() && peer;
        if !peer {
            preface::strip(&mut parts.headers);
        }
        let grpc = parts.headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
        if not_delivered {
            self.report(target, position, Outcome::NotDelivered);
        } else {
            self.report(target, position, Outcome::Status(status));
        }
        if leaving {
            target.cluster.peer(position).health.leaves(self.core.shared.clock());
        }
        hop::prepare_response(&mut parts.headers, status == 101);
        let response = match self.core.shared.bootstrap.role {
            // The peer's proxy says why, and that is for the mesh.
            Role::Gateway if not_delivered || broken => {
                respond::plain(&self.carried.request, parts.status, respond::NOT_AVAILABLE)
            }
            Role::Gateway | Role::Sidecar => Response::from_parts(parts, holding(body, in_flight)),
        };
        let outcome = if not_delivered {
            AttemptOutcome::NotDelivered
        } else if broken {
            // An application that ends breaks all of its requests at once, as a proxy that ends does.
            AttemptOutcome::Reset { may_be_delivered: true }
        } else {
            AttemptOutcome::Status { code: status, grpc }
        };
        Tried { outcome: Some(outcome), response, flags: ResponseFlags::NONE, details: "via_upstream" }
    }

    fn failed(&self, target: &Target, position: usize, error: HopError, record: &mut OpenRecord) -> Tried {
        let request = &self.carried.request;
        let (outcome, health, flags, details, message, general) = match &error {
            HopError::Connect(cause) => {
                let text = chain(cause);
                (
                    Some(AttemptOutcome::ConnectFailure),
                    Some(Outcome::ConnectFailed),
                    ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
                    "upstream_reset_before_response_started{connection_failure}",
                    text,
                    "the service cannot be reached",
                )
            }
            HopError::Overflow => (
                None,
                None,
                ResponseFlags::UPSTREAM_OVERFLOW,
                "upstream_reset_before_response_started{overflow}",
                "too many connections to the service".to_owned(),
                "too many connections to the service",
            ),
            HopError::Send(_, cause) if matches!(cause.failure, SendFailure::RequestBody(_)) => (
                None,
                None,
                ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
                "downstream_remote_disconnect",
                cause.to_string(),
                "the request's body failed",
            ),
            // Nobody but the client is at fault, and no endpoint could have carried it.
            HopError::Send(_, cause) if matches!(cause.failure, SendFailure::BadRequest(_)) => (
                None,
                None,
                ResponseFlags::INVALID_HEADERS,
                "request_not_forwardable",
                cause.to_string(),
                "the request cannot be forwarded",
            ),
            HopError::Send(_, cause) if matches!(cause.failure, SendFailure::BadResponse(_)) => (
                Some(AttemptOutcome::Status { code: 502, grpc: None }),
                Some(Outcome::Broken),
                ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
                "upstream_protocol_error",
                cause.to_string(),
                "the service's response is malformed",
            ),
            HopError::Send(delivery, cause) => (
                Some(match delivery {
                    Delivery::NotSent => AttemptOutcome::NotSent,
                    Delivery::MaybeDelivered => AttemptOutcome::Reset { may_be_delivered: true },
                }),
                Some(Outcome::Broken),
                ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
                "upstream_reset_before_response_started{connection_termination}",
                cause.to_string(),
                "the connection to the service closed before a response",
            ),
        };
        if let Some(health) = health {
            self.report(target, position, health);
        }
        if let Some(details) = record.details() {
            details.upstream_transport_failure = Some(message.clone().into());
        }
        tracing::debug!(upstream = %target.name, message, "attempt failed");
        let status = match outcome {
            Some(AttemptOutcome::Status { code, .. }) => {
                StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            _ if flags == ResponseFlags::INVALID_HEADERS => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = respond::plain(request, status, self.core.shared.words(&message, general));
        let overflow = matches!(error, HopError::Overflow);
        if overflow || matches!(outcome, Some(AttemptOutcome::ConnectFailure | AttemptOutcome::NotSent)) {
            respond::mark_not_delivered(&mut response);
        }
        Tried { outcome, response, flags, details }
    }

    fn report(&self, target: &Target, position: usize, outcome: Outcome) {
        let peer = target.cluster.peer(position);
        let policy = target.cluster.policy.outlier.as_ref();
        if let Some(length) =
            target.cluster.health.report(&peer.health, outcome, policy, self.core.shared.clock())
        {
            let host = target.service.host.as_str();
            let reason = match outcome {
                Outcome::Status(_) => "status",
                Outcome::ConnectFailed => "connect_failure",
                Outcome::Broken | Outcome::NotDelivered => "broken",
            };
            self.core.shared.telemetry.registry().counter(&names::EJECTIONS, [host, reason]).add(1);
            tracing::info!(endpoint = %peer.endpoint().workload, upstream = %target.name, ms = length, ?outcome, "endpoint ejected");
        }
    }

    /// The request as this attempt sends it.
    fn request_for(&self, backend: &Backend, hop: &Hop) -> Request<Body> {
        let original = &self.carried.request;
        let mut request = Request::new(self.replay.copy());
        *request.method_mut() = original.method().clone();
        *request.uri_mut() = original.uri().clone();
        *request.version_mut() = original.version();
        let headers = request.headers_mut();
        headers.clone_from(original.headers());
        edit(headers, &self.carried.forward.rule.request_headers);
        edit(headers, &backend.request_headers);
        hop::for_version(headers, hop.key.version == Version::H1);
        preface::strip(headers);
        if matches!(hop.security, Security::Mesh { .. })
            && let Some(deadline) = self.deadline
        {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            if let Ok(value) = HeaderValue::try_from(left.to_string()) {
                headers.insert(HeaderName::from_static(preface::DEADLINE), value);
            }
        }
        request
    }

    fn hash_key(&self, target: &Target) -> Option<u64> {
        let LoadBalancer::Hash { key, .. } = &target.cluster.policy.balancer else { return None };
        let headers = self.carried.request.headers();
        let bytes: Vec<u8> = match key {
            HashKey::Header(name) => headers.get(&**name)?.as_bytes().to_vec(),
            HashKey::Cookie { name, .. } => cookie(headers, name)?.as_bytes().to_vec(),
            HashKey::SourceIp => self.carried.source.to_string().into_bytes(),
            HashKey::Query(name) => query(self.carried.request.uri().query()?, name)?.as_bytes().to_vec(),
        };
        Some(hash_key(&bytes))
    }
}

/// How to get to an endpoint, when the client speaks `client`.
pub(crate) async fn hop_to(
    core: &Core,
    target: &Target,
    position: usize,
    client: Version,
) -> Result<Hop, ConnectError> {
    let endpoint = target.cluster.peer(position).endpoint();
    let version = target.version(endpoint, client);
    let alpn = match version {
        Version::H1 => preface::ALPN_H1,
        Version::H2 => preface::ALPN_H2,
    };
    let plain = target.is_plain(endpoint);
    let address = match &endpoint.tunnel {
        Tunnel::Dns { host } => {
            let port = endpoint.ports.get(&target.port).copied().unwrap_or(target.port);
            resolve(host, port, target.connect_timeout()).await?
        }
        Tunnel::Mesh | Tunnel::Plain | Tunnel::Gateway { .. } => address_of(endpoint, target.port, plain)?,
    };
    let limits: &Limits = &target.limits;
    let (idle, proved) = if plain { (IDLE_PLAIN, None) } else { (IDLE.duration(), core.proved_for()) };
    let longest = limits.max_connection_duration.map(leno_model::Millis::duration);
    Ok(Hop {
        key: PoolKey { address, uid: endpoint.uid.clone(), name: target.pool_name(plain), version },
        security: target.security(core, endpoint, alpn)?,
        within: target.within(position),
        idle: limits.http_idle_timeout.duration().min(idle),
        max_age: [longest, proved].into_iter().flatten().min(),
        max_requests: limits.max_requests_per_connection,
        max_connections: limits.max_connections,
        max_pending: limits.max_pending_requests,
        health: target.cluster.health.clone(),
    })
}

/// Applies header edits: set, add, remove.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    if edits.is_empty() {
        return;
    }
    let pair = |name: &str, value: &str| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    for (name, value) in &edits.set {
        if let Some((name, value)) = pair(name, value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &edits.add {
        if let Some((name, value)) = pair(name, value) {
            headers.append(name, value);
        }
    }
    for name in &edits.remove {
        headers.remove(&**name);
    }
}

/// An outcome, as the `reason` of a retry.
fn outcome_name(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::NotSent => "not_sent",
        AttemptOutcome::ConnectFailure => "connect_failure",
        AttemptOutcome::Refused => "refused",
        AttemptOutcome::NotDelivered => "not_delivered",
        AttemptOutcome::Reset { .. } => "reset",
        AttemptOutcome::Status { .. } => "status",
        AttemptOutcome::PerTryTimeout => "per_try_timeout",
    }
}

fn cookie<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let pairs = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|line| line.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

fn query<'q>(query: &'q str, wanted: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == wanted).then_some(value)
    })
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Ends a response's body at the request's deadline (Istio: the timeout covers the whole response). A tunnel has its own limits.
fn bounded(response: Response<Body>, deadline: Instant) -> Response<Body> {
    let (parts, body) = response.into_parts();
    if body.is_upgraded() || is_over(&body) {
        return Response::from_parts(parts, body);
    }
    let timer = Box::pin(tokio::time::sleep_until(deadline));
    Response::from_parts(parts, ending(body, timer, BodyError::Timeout))
}

/// A body that could not be read.
struct Failed(BodyError);

impl BodyStream for Failed {}

impl http_body::Body for Failed {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        std::task::Poll::Ready(Some(Err(self.0.clone())))
    }
}

/// Sends copies of a request to the rule's mirrors; gives the body back, whole.
async fn mirror(core: &Rc<Core>, carried: &Carried<'_>, body: Body) -> Body {
    let sampled = carried
        .forward
        .rule
        .mirrors
        .iter()
        .filter(|mirror| is_sampled(mirror.share, u64::from(core.roll()) << 32));
    let targets: Vec<&BackendTarget> = sampled.map(|mirror| &mirror.target).collect();
    if targets.is_empty() {
        return body;
    }
    let small = http_body::Body::size_hint(&body).upper().is_some_and(|size| size <= MIRRORED_BODY as u64);
    if !small {
        tracing::debug!("a request with a body of unknown or large size is not mirrored");
        return body;
    }
    let bytes = match body.collect(MIRRORED_BODY).await {
        Ok(bytes) => bytes,
        // What came of it is not the request: it fails as it would have failed on its way.
        Err(error) => return Body::boxed(Failed(error)),
    };
    for target in targets {
        let mut request = Request::new(Body::full(bytes.clone()));
        *request.method_mut() = carried.request.method().clone();
        *request.uri_mut() = carried.request.uri().clone();
        request.headers_mut().clone_from(carried.request.headers());
        super::mirror::send(core, carried.tables, target, request, carried.version, carried.source);
    }
    Body::full(bytes)
}
