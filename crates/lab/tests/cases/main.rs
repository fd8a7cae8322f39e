//! Every file in `cases/` holds through real proxies: a control plane, mTLS, recording applications, the callers' requests.
//!
//! ```text
//! documents --> World --> rig (control plane, proxies, apps)
//!           \-> Case  --> runner: way --> call --> observe, measure, probes --> Observed --> cases::check
//!                                                     \-- evidence (denials, counters, what a proxy was given)
//! ```
//!
//! A file is one test; each prints what showed on the wire and what only `decide` was asked about.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod app;
mod call;
mod documents;
mod evidence;
mod false_cases;
mod kinds;
mod loopback;
mod measure;
mod observe;
mod probes;
mod proxies;
mod published;
mod rig;
mod runner;
mod trusting;
mod way;

use std::collections::BTreeSet;

use rig::Rig;

/// Cases whose request is not sent, by file and name, and why not.
const NOT_SENT: &[(&str, &str, &str)] = &[
    (
        "authorization-conditions.yaml",
        "a condition on the name of the handshake",
        "a plaintext request has no handshake; between proxies the name is always the service's",
    ),
    (
        "backend-tls-and-places.yaml",
        "a gateway of another controller's class is not ours",
        "there is no gateway to send to, which is what the case says",
    ),
];

/// What need not show in a case that is sent, and why not.
const HARD_TO_SEE: &[(&str, &str)] = &[
    (
        "timeout",
        "a limit of many seconds, or none, is not waited for; only that nothing ends a request before",
    ),
    ("attempt_timeout", "as a timeout"),
    ("retries.per_try_timeout", "attempts times seconds"),
    ("retries.on", "applications do not cause each of the conditions; those that they can cause are tried"),
    ("retries.backoff", "the pause is random from nothing to the bound"),
    ("diagnostics", "codes LN2 are `leno analyze`'s, not the control plane's"),
];

const ELSEWHERE: &str = "the case gives its pod an address of its own, where nothing runs on this machine";

/// What else does not show in a case that is sent, by file, name and key, and why not.
const UNSEEN: &[(&str, &str, &str, &str)] = &[
    (
        "backend-tls-and-places.yaml",
        "a backend may ask for TLS",
        "mtls",
        "at the application's port is its proxy, which does not take the application's TLS: the handshake fails",
    ),
    (
        "backend-tls-and-places.yaml",
        "an endpoint of an entry that has a proxy and an identity is called with mTLS",
        "backends",
        "no proxy is at that address: a handshake is tried, and fails",
    ),
    (
        "backend-tls-and-places.yaml",
        "an endpoint of an entry that has a proxy and an identity is called with mTLS",
        "mtls",
        "no proxy is at that address: a handshake is tried, and fails",
    ),
    (
        "gateway-certificates.yaml",
        "a server in MUTUAL mode without authorities of clients lets nobody in",
        "reason",
        "a client sees that its handshake fails, not why",
    ),
    (
        "gateway-certificates.yaml",
        "a certificate of another namespace needs a grant there",
        "reason",
        "a client sees that its handshake fails, not why",
    ),
    (
        "grpc-route.yaml",
        "a backend that does not exist is unavailable",
        "status",
        "a caller of gRPC gets gRPC's status, and 200 as that of HTTP",
    ),
    ("labels.yaml", "a pod that is labelled as one of the mesh is called with mTLS", "backends", ELSEWHERE),
    ("labels.yaml", "a pod that is labelled as one of the mesh is called with mTLS", "mtls", ELSEWHERE),
    ("labels.yaml", "a pod without that label is called in plaintext", "backends", ELSEWHERE),
    ("labels.yaml", "a pod without that label is called in plaintext", "mtls", ELSEWHERE),
    ("labels.yaml", "a pod into which a sidecar was injected is in the mesh too", "backends", ELSEWHERE),
    ("labels.yaml", "a pod into which a sidecar was injected is in the mesh too", "mtls", ELSEWHERE),
    (
        "labels.yaml",
        "a pod of ours that Istio's clients call in plaintext is in the mesh",
        "backends",
        ELSEWHERE,
    ),
    ("labels.yaml", "a pod of ours that Istio's clients call in plaintext is in the mesh", "mtls", ELSEWHERE),
    (
        "labels.yaml",
        "a pod with the proxy of a live Istio is none of the mesh, and is called in plaintext",
        "backends",
        ELSEWHERE,
    ),
    (
        "labels.yaml",
        "a pod with the proxy of a live Istio is none of the mesh, and is called in plaintext",
        "mtls",
        ELSEWHERE,
    ),
    ("services.yaml", "a service without endpoints is unavailable", "backends", "nothing is reached"),
];

/// One test a file.
macro_rules! files {
    ($($test:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];

        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                holds_on_the_wire($file).await;
            }
        )*
    };
}

files! {
    authorization_actions_hold: "authorization-actions.yaml",
    authorization_conditions_hold: "authorization-conditions.yaml",
    authorization_policy_holds: "authorization-policy.yaml",
    backend_tls_and_places_hold: "backend-tls-and-places.yaml",
    destination_rule_places_hold: "destination-rule-places.yaml",
    destination_rule_holds: "destination-rule.yaml",
    fields_hold: "fields.yaml",
    gateway_certificates_hold: "gateway-certificates.yaml",
    gateway_holds: "gateway.yaml",
    grpc_route_holds: "grpc-route.yaml",
    http_route_backends_hold: "http-route-backends.yaml",
    http_route_filters_hold: "http-route-filters.yaml",
    http_route_match_holds: "http-route-match.yaml",
    http_route_mesh_holds: "http-route-mesh.yaml",
    http_route_precedence_holds: "http-route-precedence.yaml",
    istio_gateway_holds: "istio-gateway.yaml",
    labels_hold: "labels.yaml",
    more_routes_hold: "more-routes.yaml",
    peer_authentication_holds: "peer-authentication.yaml",
    refusals_hold: "refusals.yaml",
    services_hold: "services.yaml",
    stream_route_holds: "stream-route.yaml",
    virtual_service_action_holds: "virtual-service-action.yaml",
    virtual_service_match_holds: "virtual-service-match.yaml",
    virtual_service_more_holds: "virtual-service-more.yaml",
    virtual_service_stream_holds: "virtual-service-stream.yaml",
}

async fn holds_on_the_wire(file: &str) {
    let text = std::fs::read_to_string(documents::folder().join(file)).unwrap();
    let mut rig = Rig::start().await;
    let runs = documents::read(file, &text, &rig.places);
    let results = runner::run(&mut rig, &runs).await;
    eprintln!("{file}: {}", results.tally);
    for (name, why) in &results.unsent {
        eprintln!("not sent: {name}: {why}");
    }
    let listed: BTreeSet<&str> =
        NOT_SENT.iter().filter(|(of, ..)| *of == file).map(|(_, name, _)| *name).collect();
    let unsent: BTreeSet<&str> = results.unsent.iter().map(|(name, _)| name.as_str()).collect();
    let hard = results.unseen.iter().filter(|(_, kind)| !HARD_TO_SEE.iter().any(|(hard, _)| hard == kind));
    let unseen: BTreeSet<(&str, &str)> = hard.map(|(name, kind)| (name.as_str(), *kind)).collect();
    let unseen_listed: BTreeSet<(&str, &str)> =
        UNSEEN.iter().filter(|(of, ..)| *of == file).map(|(_, name, kind, _)| (*name, *kind)).collect();
    let failures: Vec<String> = results.failures.iter().map(|(name, all)| explain(name, all)).collect();
    assert!(failures.is_empty(), "{file}\n{}", failures.join("\n"));
    assert_eq!(unsent, listed, "{file}: every request is sent, but for those that are listed");
    assert_eq!(unseen, unseen_listed, "{file}: every expectation shows, but for those that are listed");
}

fn explain(name: &str, mismatches: &[leno_analyze::cases::Mismatch]) -> String {
    let lines = mismatches
        .iter()
        .map(|it| format!("\n  {}\n    expected: {}\n    actual:   {}", it.what, it.expected, it.actual));
    format!("FAIL {name}{}", lines.collect::<String>())
}

#[test]
fn every_file_of_cases_has_a_test() {
    let entries = std::fs::read_dir(documents::folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let there: BTreeSet<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    let tested: BTreeSet<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(there, tested);
}
