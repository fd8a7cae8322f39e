//! Where a connection goes whose requests are not seen: the first entry that matches its name, address and caller.

use std::net::IpAddr;

use leno_model::{HostPattern, Origin, TcpEntry};

use crate::{matching::has_labels, route::Distribution, tables::WhoAmI, trace::Trace};

/// Compiled TCP and TLS routes.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpTable {
    entries: Vec<(Vec<HostPattern>, TcpEntry)>,
}

/// What is known of a connection that is routed.
#[derive(Clone, Copy, Debug)]
pub struct TcpFacts<'c> {
    /// The name in the TLS handshake.
    pub sni: Option<&'c str>,
    /// The original destination.
    pub destination: Option<IpAddr>,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
pub enum TcpOutcome<'r> {
    /// To one of these.
    Forward {
        /// The route in the user's YAML.
        matched: &'r Origin,
        /// Where to, by weight.
        distribution: Distribution<'r>,
    },
    /// Nowhere: it matched an entry without any weight.
    NoBackend(&'r Origin),
    /// No entry matches.
    NoRoute,
}

impl TcpTable {
    /// Compiles entries, in order of precedence.
    pub fn compile(entries: &[TcpEntry]) -> Self {
        let patterns =
            |entry: &TcpEntry| entry.matcher.sni.iter().map(|name| HostPattern::parse(name)).collect();
        Self { entries: entries.iter().map(|entry| (patterns(entry), entry.clone())).collect() }
    }

    /// Whether any entry looks at the handshake's name, so that it must be read first.
    pub fn needs_sni(&self) -> bool {
        self.entries.iter().any(|(names, _)| !names.is_empty())
    }

    /// One that no connection matches.
    pub(crate) fn closed() -> Self {
        Self { entries: Vec::new() }
    }
}

/// Decides where a connection goes.
pub fn route_tcp<'r>(
    table: &'r TcpTable,
    caller: &WhoAmI,
    facts: &TcpFacts<'_>,
    trace: &mut impl Trace,
) -> TcpOutcome<'r> {
    for (names, entry) in &table.entries {
        let mismatch = mismatch(names, entry, caller, facts);
        trace.step(mismatch.is_none(), &entry.origin, || mismatch.unwrap_or("the match holds").to_owned());
        if mismatch.is_none() {
            return match Distribution::of(&entry.backends) {
                Some(distribution) => TcpOutcome::Forward { matched: &entry.origin, distribution },
                None => TcpOutcome::NoBackend(&entry.origin),
            };
        }
    }
    TcpOutcome::NoRoute
}

fn mismatch(
    names: &[HostPattern],
    entry: &TcpEntry,
    caller: &WhoAmI,
    facts: &TcpFacts<'_>,
) -> Option<&'static str> {
    let wanted = &entry.matcher;
    let named = |sni: &str| names.iter().any(|pattern| host_matches(pattern, sni));
    if !names.is_empty() && !facts.sni.is_some_and(named) {
        return Some("the name of the TLS handshake (SNI) does not match");
    }
    let within = |address: IpAddr| wanted.destination.iter().any(|net| net.contains(&address.to_canonical()));
    if !wanted.destination.is_empty() && !facts.destination.is_some_and(within) {
        return Some("the dialled address does not match");
    }
    if wanted.source_namespace.as_ref().is_some_and(|namespace| *namespace != caller.id.namespace) {
        return Some("the caller is of another namespace");
    }
    if !has_labels(&caller.labels, &wanted.source_labels) {
        return Some("the caller does not have the labels");
    }
    None
}

/// [`HostPattern::matches`] for a host in any case.
pub(crate) fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => exact.eq_ignore_ascii_case(host),
        HostPattern::Suffix(suffix) => {
            let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
            host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        HostPattern::Any => true,
    }
}
