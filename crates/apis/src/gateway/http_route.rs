//! HTTPRoute.
//!
//! Invariant: the matches of a rule are readable even when its action is refused, so that exactly the requests it would have
//! served can be answered with 500, as the specification demands.

use std::time::Duration;

use crate::codes;
use crate::decode::{Cursor, Fields, choice, gateway_duration, name, spanned, text};
use crate::diagnostic::{Rule, Source, Spanned};

use super::http_filters::{Filter, filter};
use super::reference::{BackendRef, ParentRef, backend_fields, parent_ref, weight};

/// An HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// What it attaches to.
    pub parent_refs: Vec<Rule<ParentRef>>,
    /// Hosts; empty means those of the listener or service.
    pub hostnames: Vec<Spanned<String>>,
    /// Rules.
    pub rules: Vec<HttpRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Where it starts.
    pub at: Source,
    /// Name.
    pub name: Option<String>,
    /// Any of these; empty matches every request (prefix `/`).
    pub matches: Vec<Rule<HttpMatch>>,
    /// What happens to a request that matches; refused: 500.
    pub action: Rule<HttpAction>,
}

/// What happens to a request that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAction {
    /// In order.
    pub filters: Vec<Filter>,
    /// Backends and their shares.
    pub backends: Vec<HttpBackend>,
    /// Time for the whole request; zero means none.
    pub request_timeout: Option<Spanned<Duration>>,
    /// Time for one attempt; zero means none.
    pub backend_request_timeout: Option<Spanned<Duration>>,
}

/// A share of the requests. Refused: 500 for its share.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpBackend {
    /// Share.
    pub weight: u32,
    /// Where to, and what is done on the way.
    pub target: Rule<HttpTarget>,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTarget {
    /// Where to.
    pub backend: BackendRef,
    /// In order, after the rule's.
    pub filters: Vec<Filter>,
}

/// All conditions of one match.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpMatch {
    /// Where it starts.
    pub at: Source,
    /// Path; prefix `/` when the text does not say.
    pub path: PathMatch,
    /// Headers.
    pub headers: Vec<NamedMatch>,
    /// Query parameters.
    pub query_params: Vec<NamedMatch>,
    /// Method.
    pub method: Option<String>,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The same.
    Exact(Spanned<String>),
    /// Starts with these segments.
    Prefix(Spanned<String>),
    /// Matches this regular expression.
    Regex(Spanned<String>),
}

/// A condition on a header or query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMatch {
    /// Name as written.
    pub name: String,
    /// Value.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// The same.
    Exact(Spanned<String>),
    /// Matches this regular expression.
    Regex(Spanned<String>),
}

const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

#[derive(Clone, Copy)]
enum PathType {
    Exact,
    Prefix,
    Regex,
}

const PATH_TYPES: &[(&str, PathType)] =
    &[("Exact", PathType::Exact), ("PathPrefix", PathType::Prefix), ("RegularExpression", PathType::Regex)];
const VALUE_TYPES: &[(&str, bool)] = &[("Exact", false), ("RegularExpression", true)];

pub(crate) fn http_route(o: &mut Fields<'_>) -> Option<HttpRoute> {
    o.req("spec", |value| {
        value.object(|o| {
            Some(HttpRoute {
                parent_refs: o.rules("parentRefs", parent_ref),
                hostnames: o.list("hostnames", spanned(name)),
                rules: o.list("rules", http_rule),
            })
        })
    })
}

fn http_rule(value: Cursor<'_>) -> Option<HttpRule> {
    let at = value.source();
    value.object(|o| {
        Some(HttpRule {
            at,
            name: o.opt("name", name),
            matches: o.rules("matches", http_match),
            action: o.rest_as_rule(http_action),
        })
    })
}

fn http_action(o: &mut Fields<'_>) -> Option<HttpAction> {
    let (request_timeout, backend_request_timeout) = o.or("timeouts", (None, None), timeouts)?;
    Some(HttpAction {
        filters: o.list("filters", filter),
        backends: o.list("backendRefs", http_backend),
        request_timeout,
        backend_request_timeout,
    })
}

type Timeouts = (Option<Spanned<Duration>>, Option<Spanned<Duration>>);

fn timeouts(value: Cursor<'_>) -> Option<Timeouts> {
    let here = value.clone();
    value.object(|o| {
        let request = o.opt("request", spanned(gateway_duration));
        let backend = o.opt("backendRequest", spanned(gateway_duration));
        if let (Some(request), Some(backend)) = (&request, &backend)
            && request.value < backend.value
            && !request.value.is_zero()
        {
            here.refuse(codes::INVALID_VALUE, "`backendRequest` must not be longer than `request`", None);
        }
        Some((request, backend))
    })
}

fn http_backend(value: Cursor<'_>) -> Option<HttpBackend> {
    value.object(|o| {
        let weight = weight(o);
        let target = o.rest_as_rule(|o| {
            Some(HttpTarget { filters: o.list("filters", filter), backend: backend_fields(o)? })
        });
        Some(HttpBackend { weight: weight?, target })
    })
}

fn http_match(value: Cursor<'_>) -> Option<HttpMatch> {
    let at = value.source();
    value.object(|o| {
        let default = PathMatch::Prefix(Spanned { value: "/".to_owned(), at: at.clone() });
        Some(HttpMatch {
            at,
            path: o.or("path", default, path_match)?,
            headers: o.list("headers", named_match),
            query_params: o.list("queryParams", named_match),
            method: o.opt("method", choice(METHODS)).map(str::to_owned),
        })
    })
}

fn path_match(value: Cursor<'_>) -> Option<PathMatch> {
    let root = Spanned { value: "/".to_owned(), at: value.source() };
    value.object(|o| {
        let kind = o.or("type", PathType::Prefix, choice(PATH_TYPES))?;
        let path = o.or("value", root, spanned(text))?;
        let rooted = path.value.starts_with('/');
        match kind {
            PathType::Regex => Some(PathMatch::Regex(path)),
            _ if !rooted => {
                o.here().invalid("a path must start with `/`");
                None
            }
            PathType::Exact => Some(PathMatch::Exact(path)),
            PathType::Prefix => Some(PathMatch::Prefix(path)),
        }
    })
}

pub(super) fn named_match(value: Cursor<'_>) -> Option<NamedMatch> {
    value.object(|o| {
        let regex = o.or("type", false, choice(VALUE_TYPES))?;
        let name = o.req("name", name)?;
        let value = o.req("value", spanned(text))?;
        let value = if regex { ValueMatch::Regex(value) } else { ValueMatch::Exact(value) };
        Some(NamedMatch { name, value })
    })
}

#[cfg(test)]
mod tests;
