//! A VirtualService's routes of TCP connections and of TLS connections that are passed through.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{HeaderChanges, Weighted, WeightedTarget, destination};
use crate::codes;
use crate::decode::{Cursor, Fields, ip_block, name, port, spanned, text, unsigned};
use crate::diagnostic::{Rule, Source, Spanned};

/// One entry of `spec.tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRoute {
    /// Where it starts.
    pub at: Source,
    /// Any of these; empty matches every connection.
    pub matches: Vec<Rule<StreamMatch>>,
    /// Destinations and their shares.
    pub route: Rule<Vec<Weighted>>,
}

/// One entry of `spec.tls`.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    /// Where it starts.
    pub at: Source,
    /// Any of these; the API requires one at least.
    pub matches: Vec<Rule<TlsMatch>>,
    /// Destinations and their shares.
    pub route: Rule<Vec<Weighted>>,
}

/// Conditions on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamMatch {
    /// Where it starts.
    pub at: Source,
    /// Addresses it goes to; empty means any.
    pub destination_subnets: Vec<IpNet>,
    /// Port it goes to.
    pub port: Option<Spanned<u16>>,
    /// Labels of the client.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the client.
    pub source_namespace: Option<String>,
    /// Gateways in place of the object's own.
    pub gateways: Vec<Spanned<String>>,
}

/// Conditions on a TLS connection.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsMatch {
    /// Names it asks for, possibly `*.example.com`.
    pub sni_hosts: Vec<Spanned<String>>,
    /// The other conditions.
    pub stream: StreamMatch,
}

pub(super) fn tcp_route(value: Cursor<'_>) -> Option<StreamRoute> {
    let at = value.source();
    value.object(|o| {
        let matches = o.rules("match", |value| {
            let at = value.source();
            value.object(|o| stream_match(o, at))
        });
        Some(StreamRoute { at, matches, route: o.rest_as_rule(route) })
    })
}

pub(super) fn tls_route(value: Cursor<'_>) -> Option<TlsRoute> {
    let at = value.source();
    value.object(|o| {
        let matches = o.rules("match", |value| {
            let at = value.source();
            value.object(|o| {
                let sni_hosts = o.list("sniHosts", spanned(name));
                if sni_hosts.is_empty() {
                    o.here().refuse(codes::MISSING_FIELD, "`sniHosts` is required", None);
                }
                Some(TlsMatch { sni_hosts, stream: stream_match(o, at)? })
            })
        });
        Some(TlsRoute { at, matches, route: o.rest_as_rule(route) })
    })
}

fn stream_match(o: &mut Fields<'_>, at: Source) -> Option<StreamMatch> {
    Some(StreamMatch {
        at,
        destination_subnets: o.list("destinationSubnets", ip_block),
        port: o.opt("port", spanned(port)),
        source_labels: o.map("sourceLabels", text),
        source_namespace: o.opt("sourceNamespace", text),
        gateways: o.list("gateways", spanned(name)),
    })
}

fn route(o: &mut Fields<'_>) -> Option<Vec<Weighted>> {
    let route = o.list("route", |value| {
        value.object(|o| {
            let weight = o.opt("weight", spanned(unsigned));
            let target = o.rest_as_rule(|o| {
                let destination = o.req("destination", destination)?;
                Some(WeightedTarget { destination, headers: HeaderChanges::default() })
            });
            Some(Weighted { weight, target })
        })
    });
    if route.is_empty() {
        o.here().refuse(codes::MISSING_FIELD, "`route` is required", None);
    }
    Some(route)
}
