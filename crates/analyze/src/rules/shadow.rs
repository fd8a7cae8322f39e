//! Routes that can never match, because an earlier one takes every request that they could take.
//!
//! Invariant: sound, not complete: what is reported can never match; of regular expressions only equal ones are compared.
//! A match that counts in several tables (ports, consumers, gateways) is reported only when it is hidden in all of them.

use std::{collections::BTreeMap, sync::Arc};

use leno_model::{
    HeaderTest, HttpMatch, HttpRoutes, Origin, PathMatch, QueryMatch, StringMatch, TcpEntry, TcpMatch,
};

use super::{Findings, Scene};
use crate::codes;

/// What is known of one match, over all tables.
struct Seen<'w> {
    /// What hides it; `None` once a table was found in which it counts.
    hidden_by: Option<&'w Origin>,
}

pub(super) fn routes(scene: &Scene<'_>, found: &mut Findings<'_>) {
    let mut seen: BTreeMap<&Origin, Seen<'_>> = BTreeMap::new();
    for port in scene.routes.iter().flat_map(|table| table.ports.values()) {
        port.http.iter().for_each(|routes| http(routes, &mut seen));
        tcp(&port.tcp, &mut seen);
    }
    for listener in scene.gateways.iter().flat_map(|gateway| &gateway.listeners) {
        listener.routes.iter().for_each(|host| http(&host.routes, &mut seen));
        tcp(&listener.tcp, &mut seen);
    }
    for (origin, seen) in seen {
        if let Some(by) = seen.hidden_by {
            let text = format!("it never matches: {by} comes first and takes all that it could take");
            found.warn_at(origin, codes::NEVER_MATCHES, text);
        }
    }
}

fn note<'w>(seen: &mut BTreeMap<&'w Origin, Seen<'w>>, origin: &'w Origin, hidden_by: Option<&'w Origin>) {
    seen.entry(origin)
        .and_modify(|known| {
            if hidden_by.is_none() {
                known.hidden_by = None;
            }
        })
        .or_insert(Seen { hidden_by });
}

fn http<'w>(routes: &'w HttpRoutes, seen: &mut BTreeMap<&'w Origin, Seen<'w>>) {
    for (index, entry) in routes.entries.iter().enumerate() {
        let mut earlier = routes.entries.iter().take(index);
        // Several matches of one rule may overlap; nothing is lost by that.
        let hiding = earlier.find(|first| first.rule != entry.rule && covers(&first.matcher, &entry.matcher));
        note(seen, &entry.origin, hiding.map(|first| &first.origin));
    }
}

fn tcp<'w>(entries: &'w [TcpEntry], seen: &mut BTreeMap<&'w Origin, Seen<'w>>) {
    for (index, entry) in entries.iter().enumerate() {
        let hiding = entries
            .iter()
            .take(index)
            .find(|first| first.origin != entry.origin && covers_tcp(&first.matcher, &entry.matcher));
        note(seen, &entry.origin, hiding.map(|first| &first.origin));
    }
}

/// Whether every request that `narrow` matches is matched by `wide`.
fn covers(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    let HttpMatch {
        path,
        ignore_path_case,
        method,
        scheme,
        authority,
        headers,
        query,
        source_namespace,
        source_labels,
    } = wide;
    let path = match (path, &narrow.path) {
        (None, _) => true,
        (Some(PathMatch::SegmentPrefix(root) | PathMatch::Prefix(root)), _) if **root == *"/" => true,
        (Some(_), None) => false,
        (Some(wide), Some(of_narrow)) => match (*ignore_path_case, narrow.ignore_path_case) {
            (false, true) => false,
            (false, false) => covers_path(wide, of_narrow),
            (true, _) => covers_path(&lower(wide), &lower(of_narrow)),
        },
    };
    path && covers_text(method.as_ref(), narrow.method.as_ref())
        && covers_text(scheme.as_ref(), narrow.scheme.as_ref())
        && covers_text(authority.as_ref(), narrow.authority.as_ref())
        && headers.iter().all(|wanted| {
            narrow.headers.iter().any(|has| {
                let present = wanted.test == HeaderTest::Present && !wanted.invert && !has.invert;
                wanted == has || (present && wanted.name == has.name)
            })
        })
        && query.iter().all(|wanted| narrow.query.iter().any(|has| covers_query(wanted, has)))
        && source_namespace.as_ref().is_none_or(|wanted| narrow.source_namespace.as_ref() == Some(wanted))
        && source_labels.iter().all(|(key, value)| narrow.source_labels.get(key) == Some(value))
}

fn covers_query(wide: &QueryMatch, narrow: &QueryMatch) -> bool {
    wide == narrow || (wide.test == HeaderTest::Present && wide.name == narrow.name)
}

fn covers_text(wide: Option<&StringMatch>, narrow: Option<&StringMatch>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(StringMatch::Prefix(wide)), Some(StringMatch::Exact(narrow) | StringMatch::Prefix(narrow))) => {
            narrow.starts_with(&**wide)
        }
        (Some(wide), Some(narrow)) => wide == narrow,
    }
}

fn covers_path(wide: &PathMatch, narrow: &PathMatch) -> bool {
    match (wide, narrow) {
        (
            PathMatch::Prefix(wide),
            PathMatch::Prefix(narrow) | PathMatch::SegmentPrefix(narrow) | PathMatch::Exact(narrow),
        ) => narrow.starts_with(&**wide),
        (PathMatch::SegmentPrefix(wide), PathMatch::SegmentPrefix(narrow) | PathMatch::Exact(narrow)) => {
            let wide = wide.trim_end_matches('/');
            narrow.strip_prefix(wide).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (wide, narrow) => wide == narrow,
    }
}

/// A path test as one that ignores case compares it; regular expressions do not change.
fn lower(path: &PathMatch) -> PathMatch {
    let low = |text: &Arc<str>| -> Arc<str> { text.to_ascii_lowercase().into() };
    match path {
        PathMatch::Exact(text) => PathMatch::Exact(low(text)),
        PathMatch::Prefix(text) => PathMatch::Prefix(low(text)),
        PathMatch::SegmentPrefix(text) => PathMatch::SegmentPrefix(low(text)),
        PathMatch::Suffix(text) => PathMatch::Suffix(low(text)),
        PathMatch::Regex(_) | PathMatch::Template(_) => path.clone(),
    }
}

/// Whether every connection that `narrow` matches is matched by `wide`.
fn covers_tcp(wide: &TcpMatch, narrow: &TcpMatch) -> bool {
    let TcpMatch { sni, destination, source_namespace, source_labels } = wide;
    let within = |list_is_empty: bool, has_all: bool, narrow_is_empty: bool| {
        list_is_empty || (!narrow_is_empty && has_all)
    };
    within(sni.is_empty(), narrow.sni.iter().all(|name| sni.contains(name)), narrow.sni.is_empty())
        && within(
            destination.is_empty(),
            narrow.destination.iter().all(|net| destination.iter().any(|wide| wide.contains(net))),
            narrow.destination.is_empty(),
        )
        && source_namespace.as_ref().is_none_or(|wanted| narrow.source_namespace.as_ref() == Some(wanted))
        && source_labels.iter().all(|(key, value)| narrow.source_labels.get(key) == Some(value))
}
