//! Which endpoint of a service a request goes to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codes;
use crate::decode::{Cursor, boolean, choice, go_duration, integer, name, spanned, text, unsigned};
use crate::diagnostic::{Refused, Spanned};

/// Choice of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancer {
    /// How, unless by hash.
    pub simple: Option<SimpleBalancer>,
    /// By hash of the request.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference for near endpoints.
    pub locality: Option<Spanned<LocalitySetting>>,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimpleBalancer {
    /// In turn.
    RoundRobin,
    /// The less busy of two.
    LeastRequest,
    /// Any.
    Random,
    /// The address that the client asked for.
    Passthrough,
}

/// The same endpoint for the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How.
    pub table: Table,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header.
    Header(String),
    /// A cookie, which is made when a client has none.
    Cookie(HashCookie),
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// The cookie that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashCookie {
    /// Name.
    pub name: String,
    /// Path it is made for.
    pub path: Option<String>,
    /// Life of a cookie we make; absent makes none, zero is a session cookie.
    pub ttl: Option<Duration>,
}

/// How keys are spread over endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// A ring of at least so many points.
    Ring {
        /// Fewest points; absent is the default.
        minimum_size: Option<u64>,
    },
    /// Maglev's table.
    Maglev {
        /// Size, a prime; absent is the default.
        size: Option<u64>,
    },
}

/// Preference for near endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalitySetting {
    /// Whether at all; absent is the mesh's default.
    pub enabled: Option<bool>,
    /// Fixed shares by locality.
    pub distribute: Vec<Distribute>,
    /// Which region comes next.
    pub failover: Vec<Failover>,
    /// Labels (or `label=value`) in the order of importance.
    pub failover_priority: Vec<Spanned<String>>,
}

/// Shares of one locality's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribute {
    /// `region/zone/subzone`, possibly with `*`.
    pub from: Spanned<String>,
    /// Locality to share, in percent.
    pub to: BTreeMap<String, u32>,
}

/// Where traffic goes when a region has no healthy endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Region.
    pub from: Spanned<String>,
    /// Region in its place.
    pub to: String,
}

const SIMPLE: &[(&str, Option<SimpleBalancer>)] = &[
    ("UNSPECIFIED", None),
    ("ROUND_ROBIN", Some(SimpleBalancer::RoundRobin)),
    ("LEAST_REQUEST", Some(SimpleBalancer::LeastRequest)),
    ("LEAST_CONN", Some(SimpleBalancer::LeastRequest)),
    ("RANDOM", Some(SimpleBalancer::Random)),
    ("PASSTHROUGH", Some(SimpleBalancer::Passthrough)),
];

pub(super) fn load_balancer(value: Cursor<'_>) -> Option<LoadBalancer> {
    value.object(|o| {
        o.at_most_one(&["simple", "consistentHash"]);
        let slow_start = "not supported by this release: new endpoints take their share at once";
        o.unsupported("warmup", Refused::Field, slow_start);
        o.unsupported("warmupDurationSecs", Refused::Field, slow_start);
        Some(LoadBalancer {
            simple: o.or("simple", None, choice(SIMPLE))?,
            consistent_hash: o.opt("consistentHash", consistent_hash),
            locality: o.opt("localityLbSetting", spanned(locality)),
        })
    })
}

fn consistent_hash(value: Cursor<'_>) -> Option<ConsistentHash> {
    value.object(|o| {
        o.at_most_one(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]);
        o.at_most_one(&["minimumRingSize", "ringHash", "maglev"]);
        let header = o.opt("httpHeaderName", name).map(HashKey::Header);
        let cookie = o.opt("httpCookie", cookie).map(HashKey::Cookie);
        let query = o.opt("httpQueryParameterName", name).map(HashKey::Query);
        let source = o.opt("useSourceIp", boolean).filter(|on| *on).map(|_| HashKey::SourceIp);
        let old_size = o.opt("minimumRingSize", size);
        let ring = o.opt("ringHash", |value| value.object(|o| Some(o.opt("minimumRingSize", size))));
        let maglev = o.opt("maglev", |value| value.object(|o| Some(o.opt("tableSize", size))));
        let table = match maglev {
            Some(size) => Table::Maglev { size },
            None => Table::Ring { minimum_size: ring.flatten().or(old_size) },
        };
        let Some(key) = header.or(cookie).or(query).or(source) else {
            let message = "one of `httpHeaderName`, `httpCookie`, `useSourceIp` and `httpQueryParameterName` is required";
            o.here().refuse(codes::MISSING_FIELD, message, None);
            return None;
        };
        Some(ConsistentHash { key, table })
    })
}

fn size(value: Cursor<'_>) -> Option<u64> {
    integer(0, 8_388_608)(value)
}

fn cookie(value: Cursor<'_>) -> Option<HashCookie> {
    value.object(|o| {
        Some(HashCookie {
            name: o.req("name", name)?,
            path: o.opt("path", text),
            ttl: o.opt("ttl", go_duration),
        })
    })
}

fn locality(value: Cursor<'_>) -> Option<LocalitySetting> {
    value.object(|o| {
        o.at_most_one(&["distribute", "failover", "failoverPriority"]);
        Some(LocalitySetting {
            enabled: o.opt("enabled", boolean),
            distribute: o.list("distribute", |value| {
                value.object(|o| {
                    Some(Distribute { to: o.map("to", unsigned), from: o.req("from", spanned(name))? })
                })
            }),
            failover: o.list("failover", |value| {
                value.object(|o| {
                    Some(Failover { from: o.req("from", spanned(name))?, to: o.req("to", name)? })
                })
            }),
            failover_priority: o.list("failoverPriority", spanned(name)),
        })
    })
}
