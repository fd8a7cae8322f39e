//! VirtualService: what happens to requests and connections for some hosts.
//!
//! Invariant: routes keep their order, since the first that matches wins; a refused one keeps its place.

use std::collections::BTreeMap;

use crate::decode::{Cursor, Fields, boolean, name, port, spanned, text, unsigned};
use crate::diagnostic::{Refused, Rule, Source, Spanned};

mod action;
mod stream;

pub use action::{
    Abort, AbortWith, Delay, DerivePort, DirectResponse, Fault, HeaderChanges, HeaderOperations, HttpAction,
    Mirror, Redirect, RegexRewrite, Retries, Rewrite,
};
pub use stream::{StreamMatch, StreamRoute, TlsMatch, TlsRoute};

/// A VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Hosts it speaks for.
    pub hosts: Vec<Spanned<String>>,
    /// Gateways it applies to, `mesh` among them; empty means `mesh` alone.
    pub gateways: Vec<Spanned<String>>,
    /// Namespaces that see it; empty means all.
    pub export_to: Vec<Spanned<String>>,
    /// Routes of HTTP requests.
    pub http: Vec<HttpRoute>,
    /// Routes of TLS connections that are passed through, by SNI.
    pub tls: Vec<TlsRoute>,
    /// Routes of TCP connections.
    pub tcp: Vec<StreamRoute>,
}

/// One entry of `spec.http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// Name; empty when it has none.
    pub name: String,
    /// Where it starts.
    pub at: Source,
    /// Any of these; empty matches every request.
    pub matches: Vec<Rule<HttpMatch>>,
    /// What happens to a request that matches; refused when any part of it cannot be honoured.
    pub action: Rule<HttpAction>,
}

/// All conditions of one match.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpMatch {
    /// Where it starts.
    pub at: Source,
    /// Path of the request.
    pub uri: Option<StringMatch>,
    /// Whether `uri` (exact, prefix) ignores case.
    pub ignore_uri_case: bool,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host of the request.
    pub authority: Option<StringMatch>,
    /// Headers that must match.
    pub headers: BTreeMap<String, StringMatch>,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Query parameters that must match.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Port of the service.
    pub port: Option<Spanned<u16>>,
    /// Labels of the client.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the client.
    pub source_namespace: Option<String>,
    /// Gateways in place of the object's own.
    pub gateways: Vec<Spanned<String>>,
}

/// How a string must look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// The same.
    Exact(Spanned<String>),
    /// Starts with it.
    Prefix(Spanned<String>),
    /// Matches this regular expression in full.
    Regex(Spanned<String>),
    /// Is there at all (`{}`).
    Present,
}

/// Where traffic goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host as written: short, with namespace, or in full.
    pub host: Spanned<String>,
    /// Subset of a DestinationRule.
    pub subset: Option<Spanned<String>>,
    /// Port; absent when the service has only one.
    pub port: Option<Spanned<u16>>,
}

/// A share of the traffic. Each is refused on its own: its share then fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Share; absent for the only destination.
    pub weight: Option<Spanned<u32>>,
    /// Where to, and with which changes of headers.
    pub target: Rule<WeightedTarget>,
}

/// What `Weighted` sends its share to.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedTarget {
    /// Where to.
    pub destination: Destination,
    /// Changes for this destination alone.
    pub headers: HeaderChanges,
}

pub(crate) fn virtual_service(o: &mut Fields<'_>) -> Option<VirtualService> {
    o.req("spec", |value| {
        value.object(|o| {
            Some(VirtualService {
                hosts: o.list("hosts", spanned(name)),
                gateways: o.list("gateways", spanned(name)),
                export_to: o.list("exportTo", spanned(name)),
                http: o.list("http", http_route),
                tls: o.list("tls", stream::tls_route),
                tcp: o.list("tcp", stream::tcp_route),
            })
        })
    })
}

fn http_route(value: Cursor<'_>) -> Option<HttpRoute> {
    let at = value.source();
    value.object(|o| {
        Some(HttpRoute {
            name: o.or("name", String::new(), text)?,
            at,
            matches: o.rules("match", http_match),
            action: o.rest_as_rule(action::http_action),
        })
    })
}

fn http_match(value: Cursor<'_>) -> Option<HttpMatch> {
    let at = value.source();
    value.object(|o| {
        o.unsupported("statPrefix", Refused::Field, "statistics have no prefix of their own");
        o.remark("name", "names of matches are shown nowhere; the route's is");
        Some(HttpMatch {
            at,
            uri: o.opt("uri", string_match),
            ignore_uri_case: o.or("ignoreUriCase", false, boolean)?,
            scheme: o.opt("scheme", string_match),
            method: o.opt("method", string_match),
            authority: o.opt("authority", string_match),
            headers: o.map("headers", string_match_or_present),
            without_headers: o.map("withoutHeaders", string_match_or_present),
            query_params: o.map("queryParams", string_match_or_present),
            port: o.opt("port", spanned(port)),
            source_labels: o.map("sourceLabels", text),
            source_namespace: o.opt("sourceNamespace", text),
            gateways: o.list("gateways", spanned(name)),
        })
    })
}

/// A condition on a value that is always there: `{}` says nothing and is refused.
fn string_match(value: Cursor<'_>) -> Option<StringMatch> {
    let here = value.clone();
    match string_match_or_present(value)? {
        StringMatch::Present => {
            here.invalid("one of `exact`, `prefix` and `regex` is required");
            None
        }
        found => Some(found),
    }
}

fn string_match_or_present(value: Cursor<'_>) -> Option<StringMatch> {
    if value.node().value == crate::yaml::Value::Null {
        return Some(StringMatch::Present);
    }
    value.object(|o| {
        o.at_most_one(&["exact", "prefix", "regex"]);
        let exact = o.opt("exact", spanned(text)).map(StringMatch::Exact);
        let prefix = o.opt("prefix", spanned(name)).map(StringMatch::Prefix);
        let regex = o.opt("regex", spanned(name)).map(StringMatch::Regex);
        Some(exact.or(prefix).or(regex).unwrap_or(StringMatch::Present))
    })
}

fn destination(value: Cursor<'_>) -> Option<Destination> {
    value.object(|o| {
        Some(Destination {
            host: o.req("host", spanned(name))?,
            subset: o.opt("subset", spanned(name)),
            port: o.opt("port", |value| value.object(|o| o.req("number", spanned(port)))),
        })
    })
}

fn weighted(value: Cursor<'_>) -> Option<Weighted> {
    value.object(|o| {
        let weight = o.opt("weight", spanned(unsigned));
        let target = o.rest_as_rule(|o| {
            Some(WeightedTarget {
                destination: o.req("destination", destination)?,
                headers: o.or("headers", HeaderChanges::default(), action::header_changes)?,
            })
        });
        Some(Weighted { weight, target })
    })
}

#[cfg(test)]
mod tests;
