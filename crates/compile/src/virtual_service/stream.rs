//! TLS and TCP routes of a VirtualService in the model's terms.

use leno_apis::{Rule, Source, istio::virtual_service as api};
use leno_model::{Backend, BackendTarget, HeaderEdits, TcpEntry, TcpMatch, Weight};

use super::{Place, RuleObject, action};
use crate::{
    backends::{self, Context},
    output::{Output, origin},
    pods::shared,
};

/// The entries that apply at a place and port: TLS routes first, as they match more closely.
pub(super) fn entries(
    context: Context<'_, '_>,
    place: Place<'_>,
    rule: &RuleObject,
    out: &mut Output,
) -> Vec<TcpEntry> {
    let applies = |found: &api::StreamMatch| {
        found.port.as_ref().is_none_or(|port| **port == context.port) && place.admits(&found.gateways, rule)
    };
    let mut entries = Vec::new();
    for route in &rule.spec.tls {
        let matches = route.matches.iter().filter_map(Rule::ok).filter(|found| applies(&found.stream));
        for found in matches {
            let sni = found.sni_hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect();
            let matcher = TcpMatch { sni, ..matcher(&found.stream) };
            let backends = route_of(context, rule, &route.route, out);
            entries.push(TcpEntry { matcher, backends, origin: origin(rule, &found.stream.at) });
        }
    }
    for route in &rule.spec.tcp {
        let mut add = |matcher, at: &Source, out: &mut Output| {
            let backends = route_of(context, rule, &route.route, out);
            entries.push(TcpEntry { matcher, backends, origin: origin(rule, at) });
        };
        if route.matches.is_empty() && place.admits(&[], rule) {
            add(TcpMatch::default(), &route.at, out);
        }
        for found in route.matches.iter().filter_map(Rule::ok).filter(|found| applies(found)) {
            add(matcher(found), &found.at, out);
        }
    }
    entries
}

fn matcher(found: &api::StreamMatch) -> TcpMatch {
    TcpMatch {
        sni: Vec::new(),
        destination: found.destination_subnets.clone(),
        source_namespace: found.source_namespace.as_deref().map(Into::into),
        source_labels: shared(&found.source_labels),
    }
}

fn route_of(
    context: Context<'_, '_>,
    rule: &RuleObject,
    route: &Rule<Vec<api::Weighted>>,
    out: &mut Output,
) -> Vec<Backend> {
    match route {
        Rule::Ok(given) => action::weighted(context, rule, given, out),
        Rule::Refused(because) => vec![Backend {
            weight: Weight(1),
            target: BackendTarget::Unresolved {
                status: backends::ISTIO_UNRESOLVED,
                reason: because.message.as_str().into(),
            },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeout: None,
            origin: origin(rule, &because.at),
        }],
    }
}
