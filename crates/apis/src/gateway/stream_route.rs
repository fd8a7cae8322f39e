//! TCPRoute and TLSRoute.

use crate::decode::{Cursor, Fields, name, spanned};
use crate::diagnostic::{Rule, Source, Spanned};

use super::reference::{BackendRef, ParentRef, backend_fields, parent_ref, weight};

/// A TCPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// What it attaches to.
    pub parent_refs: Vec<Rule<ParentRef>>,
    /// Rules; connections have nothing to match, so the first is the one.
    pub rules: Vec<StreamRule>,
}

/// A TLSRoute: TLS that is passed through, by SNI.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    /// What it attaches to.
    pub parent_refs: Vec<Rule<ParentRef>>,
    /// Names that clients ask for.
    pub hostnames: Vec<Spanned<String>>,
    /// Rules; the first is the one.
    pub rules: Vec<StreamRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRule {
    /// Where it starts.
    pub at: Source,
    /// Backends and their shares.
    pub backends: Rule<Vec<StreamBackend>>,
}

/// A share of the connections.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamBackend {
    /// Share.
    pub weight: u32,
    /// Where to.
    pub target: Rule<BackendRef>,
}

pub(crate) fn tcp_route(o: &mut Fields<'_>) -> Option<TcpRoute> {
    o.req("spec", |value| {
        value.object(|o| {
            Some(TcpRoute {
                parent_refs: o.rules("parentRefs", parent_ref),
                rules: o.list("rules", stream_rule),
            })
        })
    })
}

pub(crate) fn tls_route(o: &mut Fields<'_>) -> Option<TlsRoute> {
    o.req("spec", |value| {
        value.object(|o| {
            Some(TlsRoute {
                parent_refs: o.rules("parentRefs", parent_ref),
                hostnames: o.list("hostnames", spanned(name)),
                rules: o.list("rules", stream_rule),
            })
        })
    })
}

fn stream_rule(value: Cursor<'_>) -> Option<StreamRule> {
    let at = value.source();
    value.object(|o| {
        o.remark("name", "names of rules of connections are shown nowhere");
        let backends = o.rest_as_rule(|o| {
            Some(o.list("backendRefs", |value| {
                value.object(|o| {
                    let weight = weight(o);
                    Some(StreamBackend { target: o.rest_as_rule(backend_fields), weight: weight? })
                })
            }))
        });
        Some(StreamRule { at, backends })
    })
}
