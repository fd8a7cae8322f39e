//! Routing: VirtualServices, DestinationRules, HTTPRoutes and GRPCRoutes.

use leno_model::{Action, ClientTls, LoadBalancer, PathMatch, Percent};

use super::*;
use crate::{
    ObjectKey,
    status::{ACCEPTED, RESOLVED_REFS},
};

const SUBSETS: &str = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
";

fn virtual_service(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

fn http_route(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

fn cart() -> ServiceId {
    service("shop", "cart")
}

#[test]
fn routes_of_a_virtual_service_keep_their_order() {
    let spec = "{hosts: [cart], http: [{match: [{uri: {prefix: /v2}}, {headers: {end-user: {exact: jason}}}], route: [{destination: {host: cart, subset: v2}}]}, \
                {route: [{destination: {host: cart, subset: v1}}]}]}";
    let compiled =
        compiled(&(application("shop", "cart") + SUBSETS + &virtual_service("shop", "cart", spec)));
    let table = http(&compiled, &cart(), None, 80);
    assert_eq!(table.entries.iter().map(|entry| entry.rule).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(table.entries[0].matcher.path, Some(PathMatch::Prefix("/v2".into())));
    assert_eq!(forwards(&table.rules[0]), ["cart:80/v2 1"]);
    assert_eq!(forwards(&table.rules[1]), ["cart:80/v1 1"]);
    assert_eq!(&*table.rules[1].origin.field, "spec.http[1]");
    assert!(codes(&compiled).is_empty(), "{:#?}", compiled.diagnostics);
}

#[test]
fn a_subset_that_does_not_exist_fails_its_share_and_both_objects_are_named() {
    let spec = "{hosts: [cart], http: [{route: [{destination: {host: cart, subset: v1}, weight: 90}, {destination: {host: cart, subset: v9}, weight: 10}]}]}";
    let compiled =
        compiled(&(application("shop", "cart") + SUBSETS + &virtual_service("shop", "cart", spec)));
    assert_eq!(forwards(&http(&compiled, &cart(), None, 80).rules[0]), ["cart:80/v1 90", "503 10"]);
    let [finding] = compiled.diagnostics.as_slice() else { panic!("{:#?}", compiled.diagnostics) };
    assert_eq!(finding.code, crate::codes::UNKNOWN_SUBSET);
    assert!(finding.message.contains("DestinationRule shop/cart"), "{finding}");
    assert!(finding.to_string().contains("VirtualService shop/cart"), "{finding}");
    assert!(finding.at.line > 0);
}

#[test]
fn virtual_services_of_one_host_are_merged_oldest_first_with_a_finding() {
    let spec = |path: &str| {
        format!(
            "{{hosts: [cart], http: [{{match: [{{uri: {{exact: {path}}}}}], route: [{{destination: {{host: cart}}}}]}}]}}"
        )
    };
    let yaml = application("shop", "cart")
        + &virtual_service("shop", "b", &spec("/b"))
        + &virtual_service("shop", "a", &spec("/a"));
    let compiled = compiled(&yaml);
    let paths: Vec<_> =
        http(&compiled, &cart(), None, 80).entries.into_iter().map(|e| e.matcher.path.unwrap()).collect();
    assert_eq!(paths, [PathMatch::Exact("/a".into()), PathMatch::Exact("/b".into())]);
    assert_eq!(codes(&compiled), [crate::codes::CONFLICT]);
}

#[test]
fn a_rule_that_is_kept_to_a_namespace_makes_a_variant_for_it() {
    let route = |path: &str, export: &str| {
        format!(
            "{{hosts: [cart.shop.svc.cluster.local], exportTo: ['{export}'], http: [{{match: [{{uri: {{exact: {path}}}}}], route: [{{destination: {{host: cart.shop.svc.cluster.local}}}}]}}]}}"
        )
    };
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: own, namespace: lab}
spec: {host: cart.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
";
    let yaml = application("shop", "cart")
        + &virtual_service("shop", "all", &route("/all", "*"))
        + &virtual_service("web", "own", &route("/own", "."))
        + rule;
    let compiled = compiled(&yaml);
    assert_eq!(compiled.index_entry(&cart()).unwrap().variants, ["lab".into(), "web".into()]);
    assert_eq!(http(&compiled, &cart(), None, 80).entries.len(), 1);
    assert_eq!(http(&compiled, &cart(), Some("web"), 80).entries.len(), 2);
    assert_eq!(destination(&compiled, &cart(), None).policy.balancer, LoadBalancer::LeastRequest);
    assert_eq!(destination(&compiled, &cart(), Some("web")).policy.balancer, LoadBalancer::LeastRequest);
    assert_eq!(destination(&compiled, &cart(), Some("lab")).policy.balancer, LoadBalancer::RoundRobin);
    let of_web = compiled.closure(&"web".into(), &cart()).unwrap();
    assert_eq!(of_web[0], ResourceKey::destination(&cart(), Some(&"web".into())));
    let of_shop = compiled.closure(&"shop".into(), &cart()).unwrap();
    assert_eq!(of_shop[0], ResourceKey::destination(&cart(), None));
}

#[test]
fn a_subset_s_policy_lies_over_the_rule_s_and_a_port_s_replaces_it() {
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    outlierDetection: {}
    portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: X-User}}}}
";
    let compiled = compiled(&(application("shop", "cart") + rule));
    let cart = destination(&compiled, &cart(), None);
    let outlier = cart.policy.outlier.clone().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.max_ejected), (5, Percent::from_percent(10.0)));
    assert_eq!(cart.policy_for(80, None).tls, ClientTls::Disable);
    assert_eq!(cart.policy_for(80, None).balancer, LoadBalancer::LeastRequest);
    let subset = cart.policy_for(81, Some("v1"));
    assert!(matches!(subset.balancer, LoadBalancer::Hash { .. }));
    assert!(subset.outlier.is_some());
    assert!(cart.policy.locality.enabled);
}

#[test]
fn a_destination_of_several_ports_needs_one_unless_the_client_s_is_among_them() {
    let two = application("shop", "two").replace(
        "ports: [{name: http, port: 80, targetPort: 8080}]",
        "ports: [{name: http, port: 81}, {name: http-b, port: 82}]",
    );
    let spec = "{hosts: [cart], http: [{route: [{destination: {host: two}}]}]}";
    let compiled = compiled(&(application("shop", "cart") + &two + &virtual_service("shop", "cart", spec)));
    assert_eq!(forwards(&http(&compiled, &cart(), None, 80).rules[0]), ["503 1"]);
    assert_eq!(codes(&compiled), [crate::codes::AMBIGUOUS_PORT]);
}

#[test]
fn a_refused_route_fails_and_a_regular_expression_that_does_not_compile_matches_nothing() {
    let spec = "{hosts: [cart], http: [{match: [{uri: {regex: '('}}], route: [{destination: {host: cart}}]}, {delegate: {name: x}}]}";
    let yaml = application("shop", "cart") + &virtual_service("shop", "cart", spec);
    let compiled = compile(&World::of(partly_refused(&yaml)), &MeshSettings::default(), &[]);
    let table = http(&compiled, &cart(), None, 80);
    assert_eq!(table.entries.len(), 1);
    assert!(matches!(table.rules[0].action, Action::Fail { status: 500, .. }));
    assert!(codes(&compiled).contains(&crate::codes::INVALID_REGEX));
    assert!(codes(&compiled).contains(&crate::codes::RULE_REFUSED));
}

#[test]
fn producer_routes_hold_for_all_and_consumer_routes_for_their_namespace() {
    let rule = |path: &str| {
        format!(
            "rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: cart, namespace: shop, port: 80}}]}}]"
        )
    };
    let parent = "parentRefs: [{group: '', kind: Service, name: cart, namespace: shop, port: 80}]";
    let yaml = application("shop", "cart")
        + &http_route("shop", "producer", &format!("{{{parent}, {}}}", rule("/all")))
        + &http_route("web", "consumer", &format!("{{{parent}, {}}}", rule("/own")));
    let compiled = compiled(&yaml);
    let common = http(&compiled, &cart(), None, 80);
    assert_eq!(common.entries[0].matcher.path, Some(PathMatch::SegmentPrefix("/all".into())));
    assert_eq!(forwards(&common.rules[0]), ["cart:80 1"]);
    let own = http(&compiled, &cart(), Some("web"), 80);
    assert_eq!(own.entries[0].matcher.path, Some(PathMatch::SegmentPrefix("/own".into())));
    // Any client of the mesh may call the backend itself, so that no grant is needed.
    assert_eq!(forwards(&own.rules[0]), ["cart:80 1"]);
    let status = &compiled.statuses[&ObjectKey::new(Kind::HttpRoute, "web", "consumer")];
    let conditions = &status.parents.values().next().unwrap().conditions;
    assert!(conditions[ACCEPTED].status && conditions[RESOLVED_REFS].status);
}

#[test]
fn matches_are_ordered_by_the_gateway_api_s_precedence() {
    let matches = "rules: [\
        {name: root}, \
        {name: prefix, matches: [{path: {value: /a}}]}, \
        {name: long, matches: [{path: {value: /a/b}}]}, \
        {name: method, matches: [{path: {value: /a/b}, method: GET}]}, \
        {name: headers, matches: [{path: {value: /a/b}, headers: [{name: x, value: y}]}]}, \
        {name: exact, matches: [{path: {type: Exact, value: /a}}]}]";
    let spec = format!("{{parentRefs: [{{group: '', kind: Service, name: cart}}], {matches}}}");
    let compiled = compiled(&(application("shop", "cart") + &http_route("shop", "r", &spec)));
    let table = http(&compiled, &cart(), None, 80);
    let names: Vec<_> = table.entries.iter().map(|entry| &*table.rules[entry.rule as usize].name).collect();
    assert_eq!(names, ["exact", "method", "headers", "long", "prefix", "root"]);
}

#[test]
fn a_grpc_route_matches_calls_by_service_and_method() {
    let yaml = application("shop", "cart")
        + "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules:
  - matches: [{method: {service: shop.Cart}}]
    backendRefs: [{name: cart, port: 80}]
  - matches: [{method: {service: shop.Cart, method: Get}}]
    backendRefs: [{name: gone, port: 80}]
";
    let compiled = compiled(&yaml);
    let table = http(&compiled, &cart(), None, 80);
    assert_eq!(table.entries[0].matcher.path, Some(PathMatch::Exact("/shop.Cart/Get".into())));
    assert_eq!(forwards(&table.rules[table.entries[0].rule as usize]), ["503 1"]);
    assert_eq!(table.entries[1].matcher.path, Some(PathMatch::Prefix("/shop.Cart/".into())));
}

#[test]
fn a_namespace_with_subsets_of_its_own_sees_routes_that_lead_to_them() {
    let spec = "{hosts: [cart], http: [{route: [{destination: {host: other, subset: own}}]}]}";
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: other, namespace: web}
spec: {host: other.shop.svc.cluster.local, subsets: [{name: own, labels: {version: v1}}]}
";
    let yaml = application("shop", "cart")
        + &application("shop", "other")
        + rule
        + &virtual_service("shop", "cart", spec);
    let compiled = compiled(&yaml);
    assert_eq!(forwards(&http(&compiled, &cart(), None, 80).rules[0]), ["503 1"]);
    assert_eq!(forwards(&http(&compiled, &cart(), Some("web"), 80).rules[0]), ["other:80/own 1"]);
    let closure = compiled.closure(&"web".into(), &cart()).unwrap();
    assert!(closure.contains(&ResourceKey::destination(&service("shop", "other"), Some(&"web".into()))));
}

#[test]
fn every_finding_cites_a_line_and_a_field() {
    let spec = "{hosts: [cart, nobody], gateways: [mesh, gone], http: [{route: [{destination: {host: lost}}], retries: {attempts: 1, retryOn: 'x,503'}}]}";
    let compiled = compiled(&(application("shop", "cart") + &virtual_service("shop", "cart", spec)));
    let expected = [
        (crate::codes::UNKNOWN_HOST, "spec.hosts[1]"),
        (crate::codes::UNRESOLVED_REFERENCE, "spec.gateways[1]"),
        (crate::codes::UNKNOWN_HOST, "spec.http[0].route[0].destination.host"),
        (crate::codes::UNKNOWN_RETRY_CONDITION, "spec.http[0].retries.retryOn"),
    ];
    let found: Vec<_> = compiled.diagnostics.iter().map(|found| (found.code, &*found.at.field)).collect();
    for one in expected {
        assert!(found.contains(&one), "{one:?} in {found:?}");
    }
    assert!(compiled.diagnostics.iter().all(|found| found.at.line > 0 && found.object.is_some()));
}
