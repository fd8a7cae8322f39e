//! `leno analyze`: each problem that it promises to find, by place; its exit codes, JSON and colours.

use std::process::Command;

use serde_json::Value;

use crate::rig::{SHOP, alone, folder, json, program, stdout};

/// What is wrong, by code and the text that must stand on the line that is cited.
const PROBLEMS: [(&str, &str, &str); 7] = [
    (
        "LN1009",
        "name: elsewhere, port: 80",
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {value: /lost}}]
    backendRefs:
    - {name: elsewhere, port: 80}
",
    ),
    (
        "LN1001",
        "host: elsewhere",
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost, namespace: shop}
spec:
  hosts: [web]
  http:
  - route:
    - destination:
        host: elsewhere
",
    ),
    (
        "LN2001",
        "kind: Service",
        "
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec:
  selector: {app: nobody}
  ports: [{name: http, port: 80}]
",
    ),
    (
        "LN2003",
        "prefix: /a/b",
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hidden, namespace: shop}
spec:
  hosts: [cart]
  http:
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: cart}}]
  - match: [{uri: {prefix: /a/b}}]
    route: [{destination: {host: cart}}]
",
    ),
    (
        "LN1006",
        "metadata: {name: second",
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: first, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: second, namespace: shop, creationTimestamp: '2026-01-02T00:00:00Z'}
spec: {mtls: {mode: DISABLE}}
",
    ),
    (
        "LN2005",
        "name: v9",
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  subsets:
  - {name: v9, labels: {version: v9}}
",
    ),
    (
        "LN2006",
        "kind: AuthorizationPolicy",
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: shop}
spec:
  selector:
    matchLabels: {app: nobody}
",
    ),
];

#[test]
fn each_kind_of_problem_is_found_at_its_place() {
    for (code, at, text) in PROBLEMS {
        let folder = folder(&[("shop.yaml", SHOP), ("own.yaml", text)]);
        let output = alone(&["analyze", "-o", "json", "-f", folder.path().to_str().unwrap()]);
        let said = json(&output);
        let all = said["diagnostics"].as_array().unwrap();
        let line = text.lines().position(|line| line.contains(at)).unwrap() + 1;
        let found = |item: &&Value| {
            let near = item["at"]["line"].as_u64().is_some_and(|at| at.abs_diff(line as u64) <= 2);
            item["code"] == code
                && item["at"]["file"].as_str().is_some_and(|file| file.ends_with("own.yaml"))
                && near
        };
        assert_eq!(all.iter().filter(found).count(), 1, "{code} near line {line} of{text}{said:#}");
        assert!(
            all.iter().all(|item| item["at"]["file"].as_str().unwrap().ends_with("own.yaml")),
            "{said:#}"
        );
        let errors = said["errors"].as_u64().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(errors > 0)), "{said:#}");
        let strict = alone(&["analyze", "--strict", "-f", folder.path().to_str().unwrap()]);
        assert_eq!(strict.status.code(), Some(1), "{strict:?}");
        assert!(stdout(&strict).contains(&format!("[{code}]")), "{strict:?}");
    }
}

#[test]
fn what_is_in_order_has_no_finding_and_what_is_not_used_is_listed_once() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n";
    let folder = folder(&[("shop.yaml", SHOP), ("maps.yaml", &[map, map].join("---\n"))]);
    let arguments = ["analyze", "--strict", "-f", folder.path().to_str().unwrap()];
    let text = alone(&arguments);
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    assert_eq!(stdout(&text), "not used: ConfigMap (2)\n0 errors, 0 warnings\n");
    let said = json(&alone(&[&arguments[..], &["-o", "json"]].concat()));
    assert_eq!(said["diagnostics"], serde_json::json!([]));
    assert_eq!(said["unused_kinds"], serde_json::json!({"ConfigMap": 2}));
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let folder = folder(&[("shop.yaml", SHOP)]);
    let manifests = folder.path().to_str().unwrap();
    let piped = alone(&["analyze", "-f", manifests]);
    assert!(!stdout(&piped).contains('\x1b'), "{piped:?}");
    // `script` runs a command on a terminal of its own.
    let on_terminal = |environment: &[(&str, &str)]| {
        let command = format!("{} analyze -f {manifests}", program().display());
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success() && stdout(&output).contains("0 errors"), "{output:?}");
        stdout(&output)
    };
    assert!(on_terminal(&[]).contains("\x1b[32m0 errors"), "green on a terminal");
    assert!(!on_terminal(&[("NO_COLOR", "1")]).contains('\x1b'), "https://no-color.org");
}
