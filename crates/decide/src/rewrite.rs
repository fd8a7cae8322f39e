//! Changed paths and the locations of redirects.
//!
//! Invariant: a rewritten path starts with `/`. Must not know: which rule matched.

use std::{fmt::Write as _, sync::Arc};

use leno_model::{PathRewrite, Port, Redirect, RedirectPort};

use crate::{
    facts::{RequestFacts, host_of, port_of},
    matching::{BadPattern, PathTest, Pattern},
};

/// A compiled [`PathRewrite`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CompiledRewrite {
    Full(Arc<str>),
    SegmentPrefix(Arc<str>),
    Prefix(Arc<str>),
    Regex { pattern: Pattern, substitution: Vec<u8> },
}

impl CompiledRewrite {
    pub(crate) fn compile(rewrite: &PathRewrite) -> Result<Self, BadPattern> {
        Ok(match rewrite {
            PathRewrite::Full(path) => Self::Full(path.clone()),
            PathRewrite::SegmentPrefix(path) => Self::SegmentPrefix(path.trim_end_matches('/').into()),
            PathRewrite::Prefix(path) => Self::Prefix(path.clone()),
            PathRewrite::Regex { pattern, substitution } => {
                Self::Regex { pattern: Pattern::part(pattern)?, substitution: expansion(substitution) }
            }
        })
    }

    /// The path after the change; `matched` is the test that the path passed.
    pub(crate) fn apply(&self, matched: Option<&PathTest>, path: &str) -> String {
        // A rule without a path test matches the prefix `/`.
        let prefix = match matched {
            None => Some(0),
            Some(test) => test.prefix_length(),
        };
        let after = |length: usize| path.get(length..).unwrap_or("");
        let changed = match self {
            Self::Full(to) => to.to_string(),
            // gateway-api: HTTPPathModifier ReplacePrefixMatch, whose table of examples is in the tests.
            Self::SegmentPrefix(to) => match prefix {
                Some(length) => format!("{to}{}", after(length)),
                None => to.to_string(),
            },
            Self::Prefix(to) => match (matched, prefix) {
                (None, _) => format!("{to}{}", after(1)),
                (Some(_), Some(length)) => format!("{to}{}", after(length)),
                (Some(_), None) => to.to_string(),
            },
            Self::Regex { pattern, substitution } => {
                String::from_utf8_lossy(&pattern.replace_all(path.as_bytes(), substitution)).into_owned()
            }
        };
        if changed.starts_with('/') { changed } else { format!("/{changed}") }
    }
}

/// `\1` (RE2) as `${1}` (the regex crate), with `$` taken literally.
fn expansion(substitution: &str) -> Vec<u8> {
    let mut expanded = String::with_capacity(substitution.len());
    let mut rest = substitution.chars().peekable();
    while let Some(next) = rest.next() {
        match (next, rest.peek().copied()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                rest.next();
                let _ = write!(expanded, "${{{digit}}}");
            }
            ('\\', Some('\\')) => {
                rest.next();
                expanded.push('\\');
            }
            ('$', _) => expanded.push_str("$$"),
            (other, _) => expanded.push(other),
        }
    }
    expanded.into_bytes()
}

/// The value of `location`. `port` is the port that the client addressed.
pub(crate) fn location(
    redirect: &Redirect,
    rewrite: Option<&CompiledRewrite>,
    matched: Option<&PathTest>,
    request: &RequestFacts<'_>,
    port: Port,
) -> String {
    let Redirect { scheme, host, port: wanted, path: _, status: _ } = redirect;
    let new_scheme = scheme.as_deref().unwrap_or(request.scheme);
    let host = host.as_deref().unwrap_or_else(|| host_of(request.authority));
    let named = match wanted {
        // gateway-api: HTTPRequestRedirectFilter port.
        RedirectPort::Derived if scheme.is_some() => well_known(new_scheme).unwrap_or(port),
        RedirectPort::Derived => port,
        RedirectPort::FromRequest => {
            port_of(request.authority).or_else(|| well_known(request.scheme)).unwrap_or(port)
        }
        RedirectPort::ProtocolDefault => well_known(new_scheme).unwrap_or(port),
        RedirectPort::Port(port) => *port,
    };
    let mut location = match host.contains(':') && !host.starts_with('[') {
        true => format!("{new_scheme}://[{host}]"),
        false => format!("{new_scheme}://{host}"),
    };
    if well_known(new_scheme) != Some(named) {
        let _ = write!(location, ":{named}");
    }
    let mut query = request.query;
    match rewrite {
        Some(rewrite) => {
            let path = rewrite.apply(matched, request.path);
            query = query.filter(|_| !path.contains('?'));
            location.push_str(&path);
        }
        None => location.push_str(request.path),
    }
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    location
}

fn well_known(scheme: &str) -> Option<Port> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}
