//! What is refused of a VirtualService, and what stays.

use crate::{AnyObject, Refused, Severity, codes, parse};

use super::*;

fn service(http: &str) -> (VirtualService, Vec<crate::Diagnostic>) {
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n";
    let parsed = parse("dir/vs.yaml", &format!("{head}{http}"));
    let AnyObject::VirtualService(object) = parsed.objects[0].as_ref() else {
        panic!("{:?}", parsed.diagnostics)
    };
    (object.spec.clone(), parsed.diagnostics)
}

#[test]
fn an_unknown_field_is_named_with_its_place_and_a_suggestion() {
    let (service, diagnostics) =
        service("  - route:\n    - destination: {host: reviews}\n    retires: {attempts: 3}\n");
    assert_eq!(
        diagnostics[0].to_string(),
        "dir/vs.yaml:9:5: error[LN0102]: VirtualService default/reviews: spec.http[0].retires: unknown field; did you mean `retries`?"
    );
    assert_eq!(diagnostics[0].effect, Some(Refused::Rule));
    assert!(service.http[0].action.refusal().is_some());
}

#[test]
fn a_field_at_the_wrong_level_is_told_where_it_belongs() {
    let (_, diagnostics) =
        service("  - route:\n    - destination: {host: a, mirrorPercentag: 1}\n    timeout: 10\n");
    let expected: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.expected.as_deref()).collect();
    assert!(expected.contains(&Some("did you mean `spec.http[].mirrorPercentage`?")), "{expected:?}");
    assert!(diagnostics.iter().any(|diagnostic| diagnostic.message.starts_with("expected a duration")));
}

#[test]
fn cors_is_dropped_and_the_route_stays() {
    let (service, diagnostics) =
        service("  - route:\n    - destination: {host: reviews}\n    corsPolicy: {allowMethods: [GET]}\n");
    assert!(service.http[0].action.ok().is_some());
    assert_eq!((diagnostics[0].severity, diagnostics[0].effect), (Severity::Warning, Some(Refused::Field)));
}

#[test]
fn a_destination_is_refused_alone_and_keeps_its_weight() {
    let (service, _) = service(
        "  - route:\n    - destination: {host: a}\n      weight: 90\n    - destination: {hots: b}\n      weight: 10\n",
    );
    let route = &service.http[0].action.ok().unwrap().route;
    assert!(route[0].target.ok().is_some());
    assert_eq!(route[1].weight.as_ref().unwrap().value, 10);
    assert!(route[1].target.refusal().is_some());
}

#[test]
fn a_match_is_refused_alone() {
    let (service, diagnostics) = service(
        "  - match:\n    - uri: {prefix: /a}\n    - uri: {prefx: /b}\n    - headers: {x-user: {}}\n    route:\n    - destination: {host: a}\n",
    );
    let matches = &service.http[0].matches;
    assert!(matches[0].ok().is_some());
    assert_eq!(matches[1].refusal().unwrap().code, codes::UNKNOWN_FIELD);
    assert_eq!(matches[2].ok().unwrap().headers["x-user"], StringMatch::Present);
    assert_eq!(&*diagnostics[0].at.field, "spec.http[0].match[1].uri.prefx");
    assert_eq!((diagnostics[0].at.line, diagnostics[0].at.column), (9, 13));
}

#[test]
fn faults_retries_and_timeouts_have_units() {
    let (service, diagnostics) = service(
        "  - fault:\n      delay: {percentage: {value: 12.5}, fixedDelay: 7s}\n      abort: {percentage: {value: 100}, grpcStatus: UNAVAILABLE}\n    retries: {attempts: 3, perTryTimeout: 0.5s, retryOn: 5xx}\n    timeout: 10s\n    route:\n    - destination: {host: a}\n",
    );
    assert_eq!(diagnostics, []);
    let action = service.http[0].action.ok().unwrap();
    let fault = action.fault.as_ref().unwrap();
    assert_eq!(fault.delay, Some(Delay { fixed: std::time::Duration::from_secs(7), percentage: 12.5 }));
    assert_eq!(fault.abort, Some(Abort { with: AbortWith::Grpc(14), percentage: 100.0 }));
    let per_try = action.retries.as_ref().unwrap().per_try_timeout;
    assert_eq!(per_try, Some(std::time::Duration::from_millis(500)));
}

#[test]
fn a_bad_host_list_refuses_the_object() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: n}\nspec: {hosts: reviews}\n";
    let parsed = parse("vs.yaml", text);
    assert!(matches!(parsed.objects[0].as_ref(), AnyObject::Refused(object) if object.name() == "v"));
    assert_eq!(parsed.diagnostics[0].effect, Some(Refused::Object));
}

#[test]
fn a_body_of_bytes_that_are_no_text_is_refused_and_not_sent_in_another_form() {
    let of = |bytes: &str| {
        let spec = format!("  - directResponse: {{status: 200, body: {{bytes: {bytes}}}}}\n");
        let (service, _) = service(&spec);
        service.http[0].action.clone()
    };
    assert_eq!(of("aGVsbG8=").ok().unwrap().direct_response.as_ref().unwrap().body, b"hello");
    assert_eq!(of("/wD/").refusal().unwrap().code, codes::UNSUPPORTED_VALUE);
}
