//! Tests of the module above.

use leno_compile::{MeshSettings, World, compile};

use crate::{analyze, codes, embedded::materialise};

/// Services cart (HTTP), raw (TCP) and odd (undeclared), each with a workload.
const WORLD: &str = r#"
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: raw, namespace: shop}, spec: {selector: {app: cart}, ports: [{name: tcp, port: 81}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: odd, namespace: shop}, spec: {selector: {app: cart}, ports: [{name: odd, port: 82}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop, labels: {app: cart, version: v1}}, spec: {serviceAccountName: cart, containers: [{name: app, image: app, ports: [{containerPort: 80}]}]}}
---
"#;

/// `CODE LINE` of each finding, lines counted in `objects`.
fn found(objects: &str) -> Vec<String> {
    let parsed = leno_apis::parse("world.yaml", WORLD);
    let own = leno_apis::parse("own.yaml", objects);
    assert!(parsed.diagnostics.is_empty() && own.diagnostics.is_empty(), "{:?}", own.diagnostics);
    let all: Vec<_> = parsed.objects.into_iter().chain(own.objects).collect();
    let world = World::of(materialise(&all));
    let compiled = compile(&world, &MeshSettings::default(), &[]);
    let found = analyze(&world, &compiled);
    found.iter().map(|diagnostic| format!("{} {}", diagnostic.code, diagnostic.at.line)).collect()
}

fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {spec}"
    )
}

#[test]
fn a_healthy_world_has_no_findings() {
    assert_eq!(found(""), Vec::<String>::new());
}

#[test]
fn a_service_that_selects_no_workload_is_reported() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: lost, namespace: shop}, spec: {selector: {app: lost}, ports: [{port: 80}]}}";
    assert_eq!(found(service), ["LN2001 1"]);
}

#[test]
fn an_identity_that_no_workload_has_is_reported_and_a_known_one_is_not() {
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  rules:
  - from:
    - source:
        principals:
        - cluster.local/ns/shop/sa/cart
        - cluster.local/ns/shop/sa/nobody
        - cluster.local/ns/shop/sa/*
        - other.domain/ns/shop/sa/nobody
";
    assert_eq!(found(policy), ["LN2002 11"]);
}

#[test]
fn a_route_behind_one_that_takes_all_of_it_is_reported() {
    let hidden = rule(
        "
  hosts: [cart]
  http:
  - match:
    - uri: {prefix: /a}
    route: [{destination: {host: cart}}]
  - match:
    - uri: {exact: /a/b}
      headers: {x: {exact: y}}
    route: [{destination: {host: cart}}]
  - match:
    - uri: {prefix: /b}
    route: [{destination: {host: cart}}]
  - route: [{destination: {host: cart}}]
  - match:
    - uri: {regex: '/.*'}
    route: [{destination: {host: cart}}]",
    );
    assert_eq!(found(&hidden), ["LN2003 11", "LN2003 19"]);
}

#[test]
fn a_route_behind_a_narrower_one_is_not_reported() {
    let fine = rule(
        "
  hosts: [cart]
  http:
  - match: [{uri: {exact: /a}}, {uri: {prefix: /A}}, {uri: {prefix: /c}, method: {exact: GET}}]
    route: [{destination: {host: cart}}]
  - match: [{uri: {prefix: /a}}, {uri: {prefix: /a}, ignoreUriCase: true}, {uri: {prefix: /c}}]
    route: [{destination: {host: cart}}]",
    );
    assert_eq!(found(&fine), Vec::<String>::new());
}

#[test]
fn a_route_for_callers_with_labels_hides_nothing() {
    let fine = rule(
        "
  hosts: [cart]
  http:
  - match: [{sourceLabels: {app: x}}]
    route: [{destination: {host: cart}}]
  - route: [{destination: {host: cart}}]",
    );
    assert_eq!(found(&fine), Vec::<String>::new());
}

#[test]
fn a_rule_without_any_weight_is_reported() {
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules:
  - backendRefs: [{name: cart, port: 80, weight: 0}]
";
    assert_eq!(found(route), ["LN2004 8"]);
}

#[test]
fn a_subset_without_workloads_is_reported() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: shop}
spec:
  host: cart
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";
    assert_eq!(found(rule), ["LN2005 9"]);
}

#[test]
fn policies_that_select_nothing_are_reported() {
    let policies = "
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: shop}, spec: {selector: {matchLabels: {app: lost}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: web}, spec: {selector: {matchLabels: {app: cart}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: istio-system}, spec: {selector: {matchLabels: {app: cart}}}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: all, namespace: shop}, spec: {}}
";
    assert_eq!(found(policies), ["LN2006 2", "LN2006 4"]);
}

#[test]
fn plaintext_towards_a_strict_workload_is_reported() {
    let objects = "
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: shop}, spec: {host: cart, trafficPolicy: {tls: {mode: DISABLE}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: shop}, spec: {mtls: {mode: STRICT}}}
";
    assert_eq!(found(objects), ["LN2007 2"]);
    let only_disabled = objects.replace("STRICT", "PERMISSIVE");
    assert_eq!(found(&only_disabled), Vec::<String>::new());
}

#[test]
fn http_routes_of_a_port_that_declares_nothing_are_reported() {
    let routes = rule("{hosts: [odd], http: [{route: [{destination: {host: odd}}]}]}");
    assert_eq!(found(&routes), ["LN2008 4"]);
}

#[test]
fn http_routes_of_a_tcp_service_are_reported() {
    let routes = rule("{hosts: [raw], http: [{route: [{destination: {host: raw}}]}]}");
    assert_eq!(found(&routes), ["LN2009 4"]);
}

#[test]
fn every_code_has_a_meaning_and_they_ascend() {
    assert!(codes::ALL.is_sorted_by_key(|(code, _)| *code));
    assert!(codes::meaning(codes::HTTP_ROUTES_OF_TCP).is_some());
}
