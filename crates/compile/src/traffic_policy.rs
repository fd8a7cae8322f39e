//! A DestinationRule's traffic policy in the model's terms, with Istio's defaults.
//!
//! Invariant: what a policy does not say is the mesh's default; nothing here weakens TLS: a mode that cannot be honoured in
//! full still asks for TLS. Must not know: hosts, subsets, namespaces.

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::istio::destination_rule as api;
use leno_model::{
    ClientTls, ConnectionLimits, HashKey, LoadBalancer, LocalityPolicy, LocalityRule, Millis,
    OutlierDetection, Percent, Port, TrafficPolicy,
};

use crate::{pods::parse_locality, settings::MeshSettings};

/// Fewest points of a hash ring (Envoy's default).
const RING: u32 = 1024;

/// The policy of a service that no rule speaks about.
pub(crate) fn default(settings: &MeshSettings) -> TrafficPolicy {
    let locality = LocalityPolicy { enabled: settings.locality_first, ..LocalityPolicy::default() };
    TrafficPolicy { locality, ..TrafficPolicy::default() }
}

/// A policy with the settings that are given laid over it, field by field.
pub(crate) fn over(
    settings: &MeshSettings,
    base: &TrafficPolicy,
    given: &api::PolicySettings,
) -> TrafficPolicy {
    let mut policy = base.clone();
    let api::PolicySettings { load_balancer, connection_pool, outlier_detection, tls } = given;
    if let Some(given) = load_balancer {
        policy.balancer = balancer(given);
        policy.locality = locality(settings, given);
    }
    if let Some(given) = connection_pool {
        policy.limits = limits(given);
    }
    if let Some(given) = outlier_detection {
        policy.outlier = Some(outlier(given));
    }
    if let Some(given) = tls {
        policy.tls = client_tls(given);
    }
    policy
}

/// Policies by port. Istio: port-level settings replace those of the destination, and what they omit is the default.
pub(crate) fn by_port(settings: &MeshSettings, ports: &[api::PortPolicy]) -> BTreeMap<Port, TrafficPolicy> {
    ports.iter().map(|port| (*port.port, over(settings, &default(settings), &port.settings))).collect()
}

fn balancer(given: &api::LoadBalancer) -> LoadBalancer {
    if let Some(hash) = &given.consistent_hash {
        let minimum = match hash.table {
            api::Table::Ring { minimum_size } => minimum_size,
            api::Table::Maglev { size } => size,
        };
        return LoadBalancer::Hash {
            key: hash_key(&hash.key),
            minimum_ring_size: minimum.map_or(RING, |size| u32::try_from(size).unwrap_or(u32::MAX)),
        };
    }
    match given.simple {
        Some(api::SimpleBalancer::RoundRobin) => LoadBalancer::RoundRobin,
        Some(api::SimpleBalancer::Random) => LoadBalancer::Random,
        Some(api::SimpleBalancer::Passthrough) => LoadBalancer::Passthrough,
        Some(api::SimpleBalancer::LeastRequest) | None => LoadBalancer::LeastRequest,
    }
}

fn hash_key(key: &api::HashKey) -> HashKey {
    match key {
        api::HashKey::Header(name) => HashKey::Header(name.to_ascii_lowercase().into()),
        api::HashKey::Cookie(cookie) => HashKey::Cookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_deref().unwrap_or("").into(),
            ttl: cookie.ttl.map(Millis::from),
        },
        api::HashKey::SourceIp => HashKey::SourceIp,
        api::HashKey::Query(name) => HashKey::Query(name.as_str().into()),
    }
}

fn locality(settings: &MeshSettings, given: &api::LoadBalancer) -> LocalityPolicy {
    let Some(given) = &given.locality else { return default(settings).locality };
    let rule = |rule: &api::Distribute| LocalityRule {
        from: parse_locality(&rule.from),
        to: rule.to.iter().map(|(place, share)| (parse_locality(place), *share)).collect(),
    };
    LocalityPolicy {
        enabled: given.enabled.unwrap_or(true),
        distribute: given.distribute.iter().map(rule).collect(),
        failover: given
            .failover
            .iter()
            .map(|pair| (pair.from.value.as_str().into(), pair.to.as_str().into()))
            .collect(),
        failover_priority: given.failover_priority.iter().map(|label| label.value.as_str().into()).collect(),
    }
}

fn limits(given: &api::ConnectionPool) -> ConnectionLimits {
    let api::ConnectionPool { tcp, http } = given;
    // Istio: 0 means "no limit of its own" for all of these.
    let some = |limit: Option<u32>| limit.filter(|limit| *limit > 0);
    ConnectionLimits {
        max_connections: some(tcp.max_connections),
        connect_timeout: tcp.connect_timeout.map(Millis::from),
        tcp_idle_timeout: tcp.idle_timeout.map(Millis::from),
        max_connection_duration: tcp.max_connection_duration.map(Millis::from),
        max_pending_requests: some(http.http1_max_pending_requests),
        max_requests: some(http.http2_max_requests),
        max_requests_per_connection: some(http.max_requests_per_connection),
        max_retries: some(http.max_retries),
        http_idle_timeout: http.idle_timeout.map(Millis::from),
    }
}

fn outlier(given: &api::OutlierDetection) -> OutlierDetection {
    let seconds = |seconds: u64| Millis(seconds * 1000);
    OutlierDetection {
        consecutive_5xx: given.consecutive_5xx_errors.unwrap_or(5),
        consecutive_gateway_errors: given.consecutive_gateway_errors.unwrap_or(0),
        consecutive_local_failures: given
            .split_external_local_origin_errors
            .then(|| given.consecutive_local_origin_failures.unwrap_or(5)),
        interval: given.interval.map_or(seconds(10), Millis::from),
        base_ejection: given.base_ejection_time.map_or(seconds(30), Millis::from),
        max_ejected: Percent::from_percent(given.max_ejection_percent.unwrap_or(10.0)),
        min_health: Percent::from_percent(given.min_health_percent.unwrap_or(0.0)),
    }
}

fn client_tls(given: &api::ClientTls) -> ClientTls {
    match given.mode {
        api::ClientTlsMode::Disable => ClientTls::Disable,
        api::ClientTlsMode::IstioMutual => ClientTls::Mesh,
        // Without the client's certificate the server refuses us: the call fails, and is never sent in plaintext.
        api::ClientTlsMode::Simple | api::ClientTlsMode::Mutual => ClientTls::Simple {
            sni: given.sni.as_deref().unwrap_or("").into(),
            subject_alt_names: given.subject_alt_names.iter().map(|name| Arc::from(name.as_str())).collect(),
            insecure: given.insecure_skip_verify,
        },
    }
}

/// The fields of a policy that are read and not acted on, with their places.
pub(crate) fn not_honoured(given: &api::TrafficPolicy) -> Vec<(leno_apis::Source, &'static str)> {
    let mut found = Vec::new();
    let all = std::iter::once(&given.settings).chain(given.ports.iter().map(|port| &port.settings));
    for settings in all {
        if let Some(pool) = &settings.connection_pool {
            let http = &pool.http;
            let ignored = [
                (pool.tcp.keepalive.is_some(), "tcp.tcpKeepalive: the kernel's defaults hold"),
                (
                    http.h2_upgrade == Some(true),
                    "http.h2UpgradePolicy: HTTP/2 needs `appProtocol: kubernetes.io/h2c`",
                ),
                (
                    http.max_concurrent_streams.is_some(),
                    "http.maxConcurrentStreams: the peer's setting holds",
                ),
                (
                    http.use_client_protocol.is_some(),
                    "http.useClientProtocol: the version of HTTP between proxies is the client's",
                ),
                (http.http2_keepalive.is_some(), "http.http2KeepAlive: the proxy's own pings hold"),
            ];
            found.extend(ignored.into_iter().filter(|(is, _)| *is).map(|(_, what)| (pool.at.clone(), what)));
        }
        if let Some(balancer) = &settings.load_balancer
            && let Some(hash) = &balancer.consistent_hash
            && matches!(hash.table, api::Table::Maglev { .. })
        {
            found.push((balancer.at.clone(), "consistentHash.maglev: a hash ring is used in its place"));
        }
        if let Some(tls) = &settings.tls {
            let files = tls.client_certificate.is_some()
                || tls.ca_certificates.is_some()
                || tls.ca_crl.is_some()
                || tls.credential_name.is_some();
            if tls.mode == api::ClientTlsMode::Mutual {
                found.push((
                    tls.at.clone(),
                    "tls.mode MUTUAL: no client certificate is sent, so the server will refuse",
                ));
            } else if files {
                found.push((
                    tls.at.clone(),
                    "tls: own certificates and authorities; the system's authorities are used",
                ));
            }
        }
    }
    found
}
