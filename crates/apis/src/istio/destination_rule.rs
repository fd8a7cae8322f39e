//! DestinationRule: how to talk to a service, and which parts (subsets) it has.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::{
    Cursor, Fields, boolean, choice, go_duration, name, percent, port, spanned, text, unsigned,
};
use crate::diagnostic::{Refused, Rule, Spanned};

mod load_balancer;

pub use load_balancer::{
    ConsistentHash, Distribute, Failover, HashCookie, HashKey, LoadBalancer, LocalitySetting, SimpleBalancer,
    Table,
};

/// A DestinationRule.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// Host as written: short, with namespace, or in full.
    pub host: Spanned<String>,
    /// For every subset that does not say otherwise. Refused when any part of it cannot be honoured.
    pub traffic_policy: Rule<TrafficPolicy>,
    /// Named parts of the service.
    pub subsets: Vec<Rule<Subset>>,
    /// Namespaces that see it; empty means all.
    pub export_to: Vec<Spanned<String>>,
    /// Labels of the clients it applies to; absent means all.
    pub workload_selector: Option<BTreeMap<String, String>>,
}

/// A named part of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Name, and where it was written.
    pub name: Spanned<String>,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// Overrides the rule's.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How to talk to a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// For ports that do not say otherwise.
    pub settings: PolicySettings,
    /// By port: replaces all of the above for it.
    pub ports: Vec<PortPolicy>,
}

/// The settings of one port.
#[derive(Clone, Debug, PartialEq)]
pub struct PortPolicy {
    /// Port of the service.
    pub port: Spanned<u16>,
    /// Its settings.
    pub settings: PolicySettings,
}

/// The settings that a policy has for the service or for a port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySettings {
    /// Which endpoint.
    pub load_balancer: Option<Spanned<LoadBalancer>>,
    /// Limits.
    pub connection_pool: Option<Spanned<ConnectionPool>>,
    /// When an endpoint is left alone for a while.
    pub outlier_detection: Option<Spanned<OutlierDetection>>,
    /// How connections are secured.
    pub tls: Option<Spanned<ClientTls>>,
}

/// Limits of connections and requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionPool {
    /// Of connections.
    pub tcp: TcpPool,
    /// Of requests.
    pub http: HttpPool,
}

/// Limits of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpPool {
    /// Most connections.
    pub max_connections: Option<u32>,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Time without traffic.
    pub idle_timeout: Option<Duration>,
    /// Probes of the kernel.
    pub keepalive: Option<TcpKeepalive>,
}

/// Probes of idle connections by the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes after which the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Limits of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPool {
    /// Most requests that wait.
    pub http1_max_pending_requests: Option<u32>,
    /// Most requests under way.
    pub http2_max_requests: Option<u32>,
    /// Requests after which a connection is not used again.
    pub max_requests_per_connection: Option<u32>,
    /// Most retries under way.
    pub max_retries: Option<u32>,
    /// Time without requests.
    pub idle_timeout: Option<Duration>,
    /// Whether to talk HTTP/2 to a service of HTTP/1.1.
    pub h2_upgrade: Option<bool>,
    /// Whether to keep the client's version of HTTP.
    pub use_client_protocol: Option<bool>,
    /// Most streams of a connection.
    pub max_concurrent_streams: Option<u32>,
    /// Pings on idle HTTP/2 connections.
    pub http2_keepalive: Option<Http2Keepalive>,
}

/// Pings on idle HTTP/2 connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Time between pings.
    pub interval: Option<Duration>,
    /// Time to answer.
    pub timeout: Option<Duration>,
}

/// When an endpoint is left alone for a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierDetection {
    /// Errors of any 5xx in a row; 0 turns it off.
    pub consecutive_5xx_errors: Option<u32>,
    /// 502, 503, 504 in a row; 0 turns it off.
    pub consecutive_gateway_errors: Option<u32>,
    /// Connections that failed in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Whether failed connections are counted apart.
    pub split_external_local_origin_errors: bool,
    /// Time between sweeps.
    pub interval: Option<Duration>,
    /// Shortest time out.
    pub base_ejection_time: Option<Duration>,
    /// Most endpoints out, 0 to 100.
    pub max_ejection_percent: Option<f64>,
    /// Below this share of healthy endpoints nobody is left alone, 0 to 100.
    pub min_health_percent: Option<f64>,
}

/// How connections to the service are secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Mode.
    pub mode: ClientTlsMode,
    /// Files and names, for SIMPLE and MUTUAL.
    pub client_certificate: Option<String>,
    /// File of the private key.
    pub private_key: Option<String>,
    /// File of the authorities.
    pub ca_certificates: Option<String>,
    /// File of revoked certificates.
    pub ca_crl: Option<String>,
    /// Secret with certificate and authorities.
    pub credential_name: Option<Spanned<String>>,
    /// Names the server must have one of.
    pub subject_alt_names: Vec<String>,
    /// Name to ask for.
    pub sni: Option<String>,
    /// Whether the server's certificate is not looked at.
    pub insecure_skip_verify: bool,
}

/// Mode of `ClientTls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// Plaintext.
    Disable,
    /// TLS.
    Simple,
    /// Mutual TLS with given certificates.
    Mutual,
    /// Mutual TLS of the mesh.
    IstioMutual,
}

pub(crate) fn destination_rule(o: &mut Fields<'_>) -> Option<DestinationRule> {
    o.req("spec", |value| {
        value.object(|o| {
            let traffic_policy = match o.take("trafficPolicy") {
                Some(value) => value.rule(traffic_policy),
                None => Rule::Ok(TrafficPolicy::default()),
            };
            Some(DestinationRule {
                traffic_policy,
                subsets: o.rules("subsets", subset),
                export_to: o.list("exportTo", spanned(name)),
                workload_selector: o
                    .opt("workloadSelector", |value| value.object(|o| Some(o.map("matchLabels", text)))),
                host: o.req("host", spanned(name))?,
            })
        })
    })
}

fn subset(value: Cursor<'_>) -> Option<Subset> {
    value.object(|o| {
        Some(Subset {
            labels: o.map("labels", text),
            traffic_policy: o.opt("trafficPolicy", traffic_policy),
            name: o.req("name", spanned(name))?,
        })
    })
}

fn traffic_policy(value: Cursor<'_>) -> Option<TrafficPolicy> {
    value.object(|o| {
        let ports = o.list("portLevelSettings", |value| {
            value.object(|o| {
                let port = o.req("port", |value| value.object(|o| o.req("number", spanned(port))))?;
                Some(PortPolicy { port, settings: settings(o) })
            })
        });
        Some(TrafficPolicy { settings: settings(o), ports })
    })
}

fn settings(o: &mut Fields<'_>) -> PolicySettings {
    PolicySettings {
        load_balancer: o.opt("loadBalancer", spanned(load_balancer::load_balancer)),
        connection_pool: o.opt("connectionPool", spanned(connection_pool)),
        outlier_detection: o.opt("outlierDetection", spanned(outlier_detection)),
        tls: o.opt("tls", spanned(client_tls)),
    }
}

fn connection_pool(value: Cursor<'_>) -> Option<ConnectionPool> {
    value.object(|o| {
        let tcp = o.or("tcp", TcpPool::default(), tcp_pool);
        Some(ConnectionPool { http: o.or("http", HttpPool::default(), http_pool)?, tcp: tcp? })
    })
}

fn tcp_pool(value: Cursor<'_>) -> Option<TcpPool> {
    value.object(|o| {
        Some(TcpPool {
            max_connections: o.opt("maxConnections", unsigned),
            connect_timeout: o.opt("connectTimeout", go_duration),
            max_connection_duration: o.opt("maxConnectionDuration", go_duration),
            idle_timeout: o.opt("idleTimeout", go_duration),
            keepalive: o.opt("tcpKeepalive", |value| {
                value.object(|o| {
                    Some(TcpKeepalive {
                        probes: o.opt("probes", unsigned),
                        time: o.opt("time", go_duration),
                        interval: o.opt("interval", go_duration),
                    })
                })
            }),
        })
    })
}

const UPGRADE: &[(&str, Option<bool>)] =
    &[("DEFAULT", None), ("DO_NOT_UPGRADE", Some(false)), ("UPGRADE", Some(true))];

fn http_pool(value: Cursor<'_>) -> Option<HttpPool> {
    value.object(|o| {
        Some(HttpPool {
            http1_max_pending_requests: o.opt("http1MaxPendingRequests", unsigned),
            http2_max_requests: o.opt("http2MaxRequests", unsigned),
            max_requests_per_connection: o.opt("maxRequestsPerConnection", unsigned),
            max_retries: o.opt("maxRetries", unsigned),
            idle_timeout: o.opt("idleTimeout", go_duration),
            h2_upgrade: o.or("h2UpgradePolicy", None, choice(UPGRADE))?,
            use_client_protocol: o.opt("useClientProtocol", boolean),
            max_concurrent_streams: o.opt("maxConcurrentStreams", unsigned),
            http2_keepalive: o.opt("http2KeepAlive", |value| {
                value.object(|o| {
                    Some(Http2Keepalive {
                        interval: o.opt("interval", go_duration),
                        timeout: o.opt("timeout", go_duration),
                    })
                })
            }),
        })
    })
}

fn outlier_detection(value: Cursor<'_>) -> Option<OutlierDetection> {
    value.object(|o| {
        // Deprecated by Istio and read by nobody since 1.7; the codes cannot be counted apart here.
        o.unsupported("consecutiveErrors", Refused::Rule, "deprecated: use `consecutive5xxErrors`");
        Some(OutlierDetection {
            consecutive_5xx_errors: o.opt("consecutive5xxErrors", unsigned),
            consecutive_gateway_errors: o.opt("consecutiveGatewayErrors", unsigned),
            consecutive_local_origin_failures: o.opt("consecutiveLocalOriginFailures", unsigned),
            split_external_local_origin_errors: o.or("splitExternalLocalOriginErrors", false, boolean)?,
            interval: o.opt("interval", go_duration),
            base_ejection_time: o.opt("baseEjectionTime", go_duration),
            max_ejection_percent: o.opt("maxEjectionPercent", percent),
            min_health_percent: o.opt("minHealthPercent", percent),
        })
    })
}

const TLS_MODES: &[(&str, ClientTlsMode)] = &[
    ("DISABLE", ClientTlsMode::Disable),
    ("SIMPLE", ClientTlsMode::Simple),
    ("MUTUAL", ClientTlsMode::Mutual),
    ("ISTIO_MUTUAL", ClientTlsMode::IstioMutual),
];

fn client_tls(value: Cursor<'_>) -> Option<ClientTls> {
    value.object(|o| {
        Some(ClientTls {
            // proto3: the absent mode is the first, DISABLE.
            mode: o.or("mode", ClientTlsMode::Disable, choice(TLS_MODES))?,
            client_certificate: o.opt("clientCertificate", name),
            private_key: o.opt("privateKey", name),
            ca_certificates: o.opt("caCertificates", name),
            ca_crl: o.opt("caCrl", name),
            credential_name: o.opt("credentialName", spanned(name)),
            subject_alt_names: o.list("subjectAltNames", name),
            sni: o.opt("sni", name),
            insecure_skip_verify: o.or("insecureSkipVerify", false, boolean)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnyObject, parse};

    fn rule(spec: &str) -> (DestinationRule, Vec<crate::Diagnostic>) {
        let head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec:\n  host: reviews\n";
        let parsed = parse("d.yaml", &format!("{head}{spec}"));
        let AnyObject::DestinationRule(object) = parsed.objects[0].as_ref() else {
            panic!("{:?}", parsed.diagnostics)
        };
        (object.spec.clone(), parsed.diagnostics)
    }

    #[test]
    fn a_bad_subset_is_refused_alone() {
        let (rule, _) =
            rule("  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: 2}}\n");
        assert_eq!(rule.subsets[0].ok().unwrap().labels["version"], "v1");
        assert!(rule.subsets[1].refusal().is_some());
    }

    #[test]
    fn a_part_of_the_policy_that_we_cannot_honour_refuses_the_policy_not_the_subsets() {
        let (rule, diagnostics) = rule(
            "  trafficPolicy: {tunnel: {targetHost: a, targetPort: 1}}\n  subsets:\n  - {name: v1, labels: {version: v1}}\n",
        );
        assert!(rule.traffic_policy.refusal().is_some());
        assert!(rule.subsets[0].ok().is_some());
        assert_eq!(diagnostics[0].effect, Some(Refused::Rule));
    }

    #[test]
    fn the_settings_of_a_port_are_its_own() {
        let (rule, diagnostics) = rule(
            "  trafficPolicy:\n    loadBalancer: {simple: RANDOM}\n    portLevelSettings:\n    - port: {number: 80}\n      loadBalancer: {consistentHash: {httpHeaderName: x-user, minimumRingSize: 2048}}\n    outlierDetection: {consecutive5xxErrors: 5, interval: 1m, maxEjectionPercent: 50}\n",
        );
        assert_eq!(diagnostics, []);
        let policy = rule.traffic_policy.ok().unwrap();
        let hash = policy.ports[0].settings.load_balancer.as_ref().unwrap().consistent_hash.as_ref().unwrap();
        assert_eq!(hash.key, HashKey::Header("x-user".into()));
        assert_eq!(hash.table, Table::Ring { minimum_size: Some(2048) });
        let outlier = policy.settings.outlier_detection.as_ref().unwrap();
        assert_eq!(outlier.interval, Some(Duration::from_secs(60)));
    }
}
