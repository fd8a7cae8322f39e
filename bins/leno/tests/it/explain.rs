//! `leno explain`: the same words offline and about the running mesh, and what the mesh then really does.

use serde_json::Value;

use crate::rig::{SHOP, Up, alone, eventually, get, json, stdout};

const RULES: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: cart, subset: v2}}]
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new}
  - timeout: 2s
    route:
    - {destination: {host: cart, subset: v1}, weight: 75}
    - {destination: {host: cart, subset: v2}, weight: 25}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin*]}}]}]
";

const SECOND_CART: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart-v2, namespace: shop}
spec:
  selector: {matchLabels: {app: cart, version: v2}}
  template:
    metadata: {labels: {app: cart, version: v2}}
    spec:
      serviceAccountName: cart
      containers: [{name: app, image: cart, ports: [{containerPort: 8080}]}]
";

/// What is asked, the exit code, and parts of what is said.
const ASKED: [(&[&str], i32, &[&str]); 6] = [
    (
        &["--from", "shop/web", "http://cart/items"],
        0,
        &["spec.http[2]", "75.0000% to", "25.0000% to", "timeout 2000 ms", "ALLOWED"],
    ),
    (
        &["--from", "shop/web", "http://cart/items", "-H", "end-user: jason"],
        0,
        &["spec.http[0]", "fault: ", "418"],
    ),
    (&["--from", "shop/web", "http://cart/old"], 0, &["spec.http[1]", "answers 301: ", "/new"]),
    (
        &["--from", "shop/web", "http://cart/admin", "-X", "POST"],
        1,
        &["DENIED", "AuthorizationPolicy shop/no-admin spec.rules[0]", "more.yaml:"],
    ),
    (&["--from", "shop/edge", "http://anything/"], 0, &["listener http", "HTTPRoute shop/edge", "web"]),
    (&["--from", "shop/web", "http://nothing/"], 1, &["is nothing that the mesh knows"]),
];

#[test]
fn the_running_mesh_and_its_files_are_explained_alike_and_requests_fare_as_explained() {
    let shop =
        SHOP.replace("metadata: {labels: {app: cart}}", "metadata: {labels: {app: cart, version: v1}}");
    let mesh = Up::of(&shop, &[]);
    mesh.write("more.yaml", &[RULES, SECOND_CART].join("---"));
    eventually("the second cart is explained", || {
        let said = mesh.leno(&["explain", "--from", "shop/web", "http://cart/items"]);
        (stdout(&said).matches("ALLOWED").count() == 3).then_some(())
    });
    let manifests = mesh.folder.path().join("manifests").display().to_string();
    for (asked, code, parts) in ASKED {
        let live = mesh.leno(&[&["explain"], asked].concat());
        let offline = alone(&[&["explain", "-f", &manifests], asked].concat());
        for said in [&live, &offline] {
            assert_eq!(said.status.code(), Some(code), "{asked:?}: {said:?}");
            for part in parts {
                assert!(stdout(said).contains(part), "{asked:?} should say {part:?}: {}", stdout(said));
            }
        }
        let live = mesh.leno(&[&["explain", "-o", "json"], asked].concat());
        let offline = alone(&[&["explain", "-o", "json", "-f", &manifests], asked].concat());
        assert_eq!(comparable(json(&live)), comparable(json(&offline)), "{asked:?}");
    }
    let stranger = stdout(&mesh.leno(&["explain", "--from", "shop/web", "http://nothing/"]));
    assert!(stranger.contains("by way of HTTP_PROXY is answered 502"), "{stranger}");
    let answer = mesh.leno(&["run", "--workload", "shop/web", "--", "curl", "-si", "http://nothing/"]);
    assert!(stdout(&answer).starts_with("HTTP/1.1 502"), "as it is explained: {answer:?}");
    let nobody = mesh.leno(&["explain", "--from", "shop/nobody", "http://cart/"]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");

    let cart = |answer: &str| answer.split("\"calls\":[").nth(1).unwrap_or_default().to_owned();
    let edge = mesh.edge();
    let seen: Vec<String> = (0..60).map(|_| cart(&get(edge, "/"))).collect();
    let of = |version: &str| {
        seen.iter().filter(|call| call.contains(&format!("\"version\":\"{version}\""))).count()
    };
    assert_eq!(of("v1") + of("v2"), 60, "{seen:?}");
    assert!(of("v1") > of("v2") && of("v2") > 0, "75 % and 25 %: {} and {}", of("v1"), of("v2"));
    mesh.stop();
}

/// Names of pods and addresses are those of whoever made them; all else must be the same.
fn comparable(mut said: Value) -> Value {
    anonymous(&mut said);
    said
}

fn anonymous(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["caller", "workload", "tiers"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(anonymous);
        }
        Value::Array(items) => items.iter_mut().for_each(anonymous),
        _ => {}
    }
}
