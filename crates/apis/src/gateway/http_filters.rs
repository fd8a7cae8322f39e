//! Filters of HTTPRoute and GRPCRoute: what is done to a request on its way.
//!
//! Invariant: a filter we do not know refuses what it belongs to (the rule or the backend), as the specification demands.

use crate::codes;
use crate::decode::{Cursor, choice, integer, name, percent, port, spanned, text};
use crate::diagnostic::{Source, Spanned};

use super::reference::{BackendRef, backend_fields};

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Where it starts.
    pub at: Source,
    /// What it does.
    pub action: FilterAction,
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterAction {
    /// Changes headers of the request.
    RequestHeaders(HeaderModifier),
    /// Changes headers of the response.
    ResponseHeaders(HeaderModifier),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Changes path or host.
    Rewrite(Rewrite),
    /// Sends copies elsewhere.
    Mirror(Mirror),
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Replace.
    pub set: Vec<Header>,
    /// Append.
    pub add: Vec<Header>,
    /// Remove.
    pub remove: Vec<Spanned<String>>,
}

/// A header and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name as written.
    pub name: Spanned<String>,
    /// Value.
    pub value: String,
}

/// A redirect. What is absent is the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host.
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathModifier>,
    /// Port.
    pub port: Option<u16>,
    /// Status; 302 when the text does not say.
    pub status_code: u16,
}

/// A change of path or host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Host.
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathModifier>,
}

/// A change of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// The whole path.
    ReplaceFullPath(String),
    /// The prefix that the rule matched.
    ReplacePrefixMatch(String),
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub backend: BackendRef,
    /// Share of the requests, 0 to 100.
    pub percentage: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    RequestHeaders,
    ResponseHeaders,
    Redirect,
    Rewrite,
    Mirror,
}

const TYPES: &[(&str, Type)] = &[
    ("RequestHeaderModifier", Type::RequestHeaders),
    ("ResponseHeaderModifier", Type::ResponseHeaders),
    ("RequestRedirect", Type::Redirect),
    ("URLRewrite", Type::Rewrite),
    ("RequestMirror", Type::Mirror),
];

pub(super) fn filter(value: Cursor<'_>) -> Option<Filter> {
    let at = value.source();
    value.object(|o| {
        // The field that `type` names is taken; any other is left over and refused.
        let action = match o.req("type", filter_type)? {
            Type::RequestHeaders => {
                FilterAction::RequestHeaders(o.req("requestHeaderModifier", header_modifier)?)
            }
            Type::ResponseHeaders => {
                FilterAction::ResponseHeaders(o.req("responseHeaderModifier", header_modifier)?)
            }
            Type::Redirect => FilterAction::Redirect(o.req("requestRedirect", redirect)?),
            Type::Rewrite => FilterAction::Rewrite(o.req("urlRewrite", rewrite)?),
            Type::Mirror => FilterAction::Mirror(o.req("requestMirror", mirror)?),
        };
        Some(Filter { at, action })
    })
}

/// The standard channel does not know `ExternalAuth`, which the experimental one has.
fn filter_type(value: Cursor<'_>) -> Option<Type> {
    if value.node().as_text() == Some("ExternalAuth") {
        value.refuse(codes::UNSUPPORTED_VALUE, "ExternalAuth is not supported by this release", None);
        return None;
    }
    choice(TYPES)(value)
}

fn header_modifier(value: Cursor<'_>) -> Option<HeaderModifier> {
    value.object(|o| {
        Some(HeaderModifier {
            set: o.list("set", header),
            add: o.list("add", header),
            remove: o.list("remove", spanned(name)),
        })
    })
}

fn header(value: Cursor<'_>) -> Option<Header> {
    value.object(|o| Some(Header { name: o.req("name", spanned(name))?, value: o.req("value", text)? }))
}

fn redirect(value: Cursor<'_>) -> Option<Redirect> {
    value.object(|o| {
        Some(Redirect {
            scheme: o.opt("scheme", choice(&[("http", "http"), ("https", "https")])).map(str::to_owned),
            hostname: o.opt("hostname", name),
            path: o.opt("path", path_modifier),
            port: o.opt("port", port),
            status_code: o.or("statusCode", 302, |value| {
                let code = integer::<u16>(300, 399)(value.clone())?;
                let known = matches!(code, 301 | 302 | 303 | 307 | 308);
                if !known {
                    value.invalid(format!("{code} is not one of 301, 302, 303, 307 and 308"));
                }
                known.then_some(code)
            })?,
        })
    })
}

fn rewrite(value: Cursor<'_>) -> Option<Rewrite> {
    value.object(|o| Some(Rewrite { hostname: o.opt("hostname", name), path: o.opt("path", path_modifier) }))
}

fn path_modifier(value: Cursor<'_>) -> Option<PathModifier> {
    value.object(|o| {
        let full = o.req("type", choice(&[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)]))?;
        if full {
            o.req("replaceFullPath", text).map(PathModifier::ReplaceFullPath)
        } else {
            o.req("replacePrefixMatch", text).map(PathModifier::ReplacePrefixMatch)
        }
    })
}

fn mirror(value: Cursor<'_>) -> Option<Mirror> {
    value.object(|o| {
        o.at_most_one(&["percent", "fraction"]);
        let whole = o.opt("percent", percent);
        let fraction = o.opt("fraction", fraction);
        let backend = o.req("backendRef", |value| value.object(backend_fields))?;
        Some(Mirror { backend, percentage: whole.or(fraction).unwrap_or(100.0) })
    })
}

fn fraction(value: Cursor<'_>) -> Option<f64> {
    let here = value.clone();
    value.object(|o| {
        let numerator: i64 = o.req("numerator", integer(0, i64::from(i32::MAX)))?;
        let denominator: i64 = o.or("denominator", 100, integer(1, i64::from(i32::MAX)))?;
        if numerator > denominator {
            here.refuse(codes::INVALID_VALUE, "the numerator is larger than the denominator", None);
            return None;
        }
        Some(numerator as f64 * 100.0 / denominator as f64)
    })
}
