//! GRPCRoute.
//!
//! Invariant: as for HTTPRoute, the matches are readable even when the action is refused.

use crate::codes;
use crate::decode::{Cursor, Fields, choice, name, spanned, text};
use crate::diagnostic::{Rule, Source, Spanned};

use super::http_filters::{Filter, filter};
use super::http_route::{HttpBackend, HttpTarget, NamedMatch, named_match};
use super::reference::{ParentRef, backend_fields, parent_ref, weight};

/// A GRPCRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcRoute {
    /// What it attaches to.
    pub parent_refs: Vec<Rule<ParentRef>>,
    /// Hosts; empty means those of the listener or service.
    pub hostnames: Vec<Spanned<String>>,
    /// Rules.
    pub rules: Vec<GrpcRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcRule {
    /// Where it starts.
    pub at: Source,
    /// Name.
    pub name: Option<String>,
    /// Any of these; empty matches every call.
    pub matches: Vec<Rule<GrpcMatch>>,
    /// What happens to a call that matches; refused: `UNAVAILABLE`.
    pub action: Rule<GrpcAction>,
}

/// What happens to a call that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcAction {
    /// In order; without redirects and rewrites, which the API does not have here.
    pub filters: Vec<Filter>,
    /// Backends and their shares.
    pub backends: Vec<HttpBackend>,
}

/// All conditions of one match.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcMatch {
    /// Where it starts.
    pub at: Source,
    /// Service and method; absent matches all.
    pub method: Option<GrpcMethodMatch>,
    /// Headers.
    pub headers: Vec<NamedMatch>,
}

/// A condition on service and method. At least one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcMethodMatch {
    /// Whether the strings are regular expressions.
    pub regex: bool,
    /// Service with its package.
    pub service: Option<Spanned<String>>,
    /// Method.
    pub method: Option<Spanned<String>>,
}

pub(crate) fn grpc_route(o: &mut Fields<'_>) -> Option<GrpcRoute> {
    o.req("spec", |value| {
        value.object(|o| {
            Some(GrpcRoute {
                parent_refs: o.rules("parentRefs", parent_ref),
                hostnames: o.list("hostnames", spanned(name)),
                rules: o.list("rules", grpc_rule),
            })
        })
    })
}

fn grpc_rule(value: Cursor<'_>) -> Option<GrpcRule> {
    let at = value.source();
    value.object(|o| {
        Some(GrpcRule {
            at,
            name: o.opt("name", name),
            matches: o.rules("matches", grpc_match),
            action: o.rest_as_rule(|o| {
                Some(GrpcAction {
                    filters: o.list("filters", grpc_filter),
                    backends: o.list("backendRefs", |value| {
                        value.object(|o| {
                            let weight = weight(o);
                            let target = o.rest_as_rule(|o| {
                                let filters = o.list("filters", grpc_filter);
                                Some(HttpTarget { filters, backend: backend_fields(o)? })
                            });
                            Some(HttpBackend { weight: weight?, target })
                        })
                    }),
                })
            }),
        })
    })
}

/// The filters of HTTPRoute but those that would change the path, which gRPC does not allow.
fn grpc_filter(value: Cursor<'_>) -> Option<Filter> {
    use super::http_filters::FilterAction::{Mirror, Redirect, RequestHeaders, ResponseHeaders, Rewrite};
    let here = value.clone();
    let found = filter(value)?;
    match found.action {
        RequestHeaders(_) | ResponseHeaders(_) | Mirror(_) => Some(found),
        Redirect(_) | Rewrite(_) => {
            here.invalid("GRPCRoute has no redirects and rewrites");
            None
        }
    }
}

fn grpc_match(value: Cursor<'_>) -> Option<GrpcMatch> {
    let at = value.source();
    value.object(|o| {
        let headers = o.list("headers", named_match);
        Some(GrpcMatch { at, method: o.opt("method", method_match), headers })
    })
}

fn method_match(value: Cursor<'_>) -> Option<GrpcMethodMatch> {
    value.object(|o| {
        let found = GrpcMethodMatch {
            regex: o.or("type", false, choice(&[("Exact", false), ("RegularExpression", true)]))?,
            service: o.opt("service", spanned(text)).filter(|text| !text.is_empty()),
            method: o.opt("method", spanned(text)).filter(|text| !text.is_empty()),
        };
        if found.service.is_none() && found.method.is_none() {
            o.here().refuse(codes::MISSING_FIELD, "one of `service` and `method` is required", None);
        }
        Some(found)
    })
}
