//! What is refused of an HTTPRoute, and what stays.

use crate::{AnyObject, codes, parse};

use super::*;

fn route(rules: &str) -> (HttpRoute, Vec<crate::Diagnostic>) {
    let head =
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  rules:\n";
    let parsed = parse("r.yaml", &format!("{head}{rules}"));
    let AnyObject::HttpRoute(object) = parsed.objects[0].as_ref() else { panic!("{:?}", parsed.diagnostics) };
    (object.spec.clone(), parsed.diagnostics)
}

#[test]
fn an_unknown_filter_refuses_the_action_and_leaves_the_matches_readable() {
    let (route, diagnostics) = route(
        "  - matches:\n    - path: {type: PathPrefix, value: /a}\n    filters:\n    - type: ExtensionRef\n      extensionRef: {group: g, kind: K, name: n}\n",
    );
    let matched = route.rules[0].matches[0].ok().unwrap();
    assert!(matches!(&matched.path, PathMatch::Prefix(path) if path.value == "/a"));
    assert_eq!(route.rules[0].action.refusal().unwrap().code, codes::UNSUPPORTED_VALUE);
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn a_bad_backend_is_refused_alone() {
    let (route, _) =
        route("  - backendRefs:\n    - {name: a, port: 80}\n    - {name: b, port: http, weight: 3}\n");
    let action = route.rules[0].action.ok().unwrap();
    assert!(action.backends[0].target.ok().is_some());
    assert_eq!(action.backends[1].weight, 3);
    assert_eq!(action.backends[1].target.refusal().unwrap().code, codes::WRONG_TYPE);
}

#[test]
fn timeouts_are_durations_of_the_gateway_api() {
    let (route, _) =
        route("  - timeouts: {request: 10s, backendRequest: 1500ms}\n  - timeouts: {request: 1.5s}\n");
    let action = route.rules[0].action.ok().unwrap();
    assert_eq!(action.request_timeout.as_ref().unwrap().value, Duration::from_secs(10));
    assert_eq!(action.backend_request_timeout.as_ref().unwrap().value, Duration::from_millis(1500));
    assert_eq!(route.rules[1].action.refusal().unwrap().code, codes::INVALID_VALUE);
}

#[test]
fn fields_of_the_experimental_channel_are_refused_not_unknown() {
    let (_, diagnostics) = route("  - retry: {attempts: 2}\n");
    assert_eq!(diagnostics[0].code, codes::UNSUPPORTED_FIELD);
}
