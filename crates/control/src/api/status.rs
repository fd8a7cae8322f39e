//! How the control plane and its mesh are.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use leno_apis::{Diagnostic, ObjectRef, Severity};
use leno_identity::UnixTime;
use serde_json::{Value, json};

use super::{Api, objects};
use crate::{
    clock::now,
    peering::Heard,
    published::Published,
    rollout::{self, ProxyState},
};

/// `/v1/status`
pub(super) fn status(api: &Api, published: &Published) -> Value {
    let config = &api.config;
    let proxies = rollout::proxies(&api.sessions, published);
    let rollout = rollout::rollout(&proxies);
    let told_to = api
        .sessions
        .all()
        .iter()
        .filter(|it| it.node.workload.starts_with(crate::authorize::CONTROL_PREFIX))
        .count();
    json!({
        "cluster": config.cluster,
        "region": config.region,
        "zone": config.zone,
        "network": config.network,
        "trust_domain": config.trust_domain,
        "version": env!("CARGO_PKG_VERSION"),
        "started": api.started.as_secs(),
        "generation": published.generation,
        "since": published.since.as_secs(),
        "objects": published.reading.objects.len(),
        "resources": published.compiled.resources.len(),
        "unused_kinds": published.reading.unused_kinds,
        "source_error": api.said.borrow().error.as_deref(),
        "rollout": rollout,
        "proxies": proxies,
        "diagnostics": counts(published),
        "errors": errors(published),
        "kept": kept(published),
        "peers": peers(api)["peers"].take(),
        "told_to": told_to,
        "certificates": certificates(api),
    })
}

/// `/v1/proxies`
pub(super) fn proxies(api: &Api, published: &Published) -> Value {
    let proxies: Vec<ProxyState> = rollout::proxies(&api.sessions, published);
    json!({ "generation": published.generation, "rollout": rollout::rollout(&proxies), "proxies": proxies })
}

/// `/v1/peers`
pub(super) fn peers(api: &Api) -> Value {
    let at: BTreeMap<_, _> = api.config.peers.iter().map(|peer| (&peer.cluster, &peer.addresses)).collect();
    let table = api.peers.all();
    let peers = table.iter().map(|(cluster, heard)| {
        let Heard { remote, connected, last, cause, disbelieved } = heard;
        let exports = remote.iter().flat_map(|remote| &remote.exports);
        json!({
            "cluster": cluster,
            "addresses": at.get(cluster),
            "connected": connected,
            "known": remote.is_some(),
            "stale": remote.as_ref().is_some_and(|remote| remote.stale),
            "heard": last.map(|last| last.as_secs()),
            "age_seconds": last.map(|last| now().as_secs().saturating_sub(last.as_secs())),
            "cause": cause.as_deref(),
            "network": remote.as_ref().map(|remote| &remote.network),
            "gateways": remote.as_ref().map(|remote| &remote.gateways),
            "services": exports.clone().count(),
            "endpoints": exports.map(|export| export.endpoints.len()).sum::<usize>(),
            "disbelieved": disbelieved,
        })
    });
    json!({ "peers": peers.collect::<Vec<_>>() })
}

/// How many findings of each severity.
pub(super) fn counts(published: &Published) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::from([("error", 0), ("warning", 0), ("info", 0)]);
    for diagnostic in objects::all_diagnostics(published) {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        *counts.entry(severity).or_default() += 1;
    }
    counts
}

/// Most errors that a status tells; all of them are at `/v1/diagnostics`.
const MOST_ERRORS: usize = 10;

/// What is wrong, apart from what keeps an object in its older form.
fn errors(published: &Published) -> Vec<&Diagnostic> {
    let kept = &published.reading.kept;
    let files: Vec<_> = kept.iter().filter_map(|name| published.reading.objects.get(name)).collect();
    let told = |error: &&Diagnostic| match &error.object {
        Some(object) => kept.contains(object),
        None => files.iter().any(|object| object.source().file == error.at.file),
    };
    let errors = objects::all_diagnostics(published).filter(|it| it.severity == Severity::Error);
    errors.filter(|error| !told(error)).take(MOST_ERRORS).collect()
}

/// Objects in force in an older form, with what is wrong with their present text.
fn kept(published: &Published) -> Vec<Value> {
    let reading = &published.reading;
    let kept = reading.kept.iter().map(|name: &ObjectRef| {
        let file = reading.objects.get(name).map(|object| &object.source().file);
        let about = |diagnostic: &&Diagnostic| match &diagnostic.object {
            Some(object) => object == name,
            // A document that cannot be read names nobody: it may be any object of its file.
            None => Some(&diagnostic.at.file) == file,
        };
        let errors = reading.diagnostics.iter().filter(|it| it.severity == Severity::Error);
        let because: Vec<&Diagnostic> = errors.filter(about).collect();
        json!({ "object": name, "because": because })
    });
    kept.collect()
}

fn certificates(api: &Api) -> Value {
    let own = api.store.certificate().map(|certificate| {
        json!({
            "identity": certificate.spiffe_id().as_str(),
            "serial": certificate.serial().to_string(),
            "not_after": certificate.not_after().as_secs(),
        })
    });
    let left = |at: UnixTime| at.as_secs().saturating_sub(now().as_secs());
    json!({
        "own": own,
        "authority_not_after": api.authority.not_after().as_secs(),
        "authority_seconds_left": left(api.authority.not_after()),
        "asked": api.counts.asked.load(Relaxed),
        "issued": api.counts.issued.load(Relaxed),
    })
}
