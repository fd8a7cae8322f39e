//! What `leno up` reads: standard input, lists, many documents, what it does not use, what is broken; and real ports.

use std::{fs, process::Command};

use serde_json::Value;

use crate::rig::{SHOP, Up, eventually, folder, page};

/// Calls itself in a circle by way of the cart, and one that is not there.
const CIRCLE: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: circle, namespace: shop}
  spec: {selector: {app: circle}, ports: [{name: http, port: 80, targetPort: 8080}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: circle, namespace: shop}
  spec:
    selector: {matchLabels: {app: circle}}
    template:
      metadata: {labels: {app: circle}}
      spec:
        containers:
        - name: app
          image: circle
          ports: [{containerPort: 8080}]
          env: [{name: CIRCLE_ADDR, value: 'circle:80'}, {name: NOBODY_ADDR, value: 'nobody:80'}]
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: circle, namespace: shop}
  spec:
    parentRefs: [{name: edge}]
    rules: [{matches: [{path: {value: /circle}}], backendRefs: [{name: circle, port: 80}]}]
";

const NOT_USED: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two, namespace: shop}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
";

const BROKEN: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: broken, namespace: shop}
spec:
  replicas: many
  selector: {matchLabels: {app: broken}}
  template: {metadata: {labels: {app: broken}}, spec: {containers: [{name: app}]}}
";

#[test]
fn standard_input_makes_a_mesh_of_all_that_is_good_and_says_the_rest_once() {
    let input = [SHOP, BROKEN, CIRCLE, NOT_USED].join("\n---\n");
    let line = input.lines().position(|line| line.contains("replicas: many")).unwrap() + 1;
    let mesh = Up::start(folder(&[]), &["-f", "-"], &input);
    let edge = mesh.edge();
    assert_eq!(page(edge, "/")["calls"][0]["status"], "200", "the good documents load");

    let told = mesh.errors();
    let place = format!("stdin.yaml:{line}:13: error[");
    let error = told.lines().find(|line| line.contains(&place)).unwrap_or_else(|| panic!("{place}: {told}"));
    for part in ["Deployment shop/broken", "spec.replicas", "expected an integer", "\"many\""] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let unused: Vec<&str> = told.lines().filter(|line| line.contains("ConfigMap")).collect();
    let [unused] = unused.as_slice() else { panic!("told {} times: {told}", unused.len()) };
    assert!(unused.contains("ConfigMap (2)") && unused.contains("batch/CronJob (1)"), "{unused}");

    walks_in_a_circle(&mesh, &page(edge, "/circle"));
    mesh.stop();
}

/// The circle ends at the hop limit, and the service that is none is a failed call at every hop: counted, never fatal.
fn walks_in_a_circle(mesh: &Up, first: &Value) {
    let (mut hops, mut here) = (0, first);
    while let Some(calls) = here["calls"].as_array().filter(|calls| !calls.is_empty()) {
        let [next, nobody] = calls.as_slice() else { panic!("{here}") };
        assert_eq!(nobody["error"], "no such service: nobody", "{here}");
        assert_eq!(next["status"], "200", "{here}");
        (hops, here) = (hops + 1, next);
    }
    assert_eq!(hops, 8, "{first}");
    let record = mesh.record().unwrap();
    let circle = record.clusters[0].workloads.iter().find(|it| it.owner == "circle").unwrap();
    let counters = page((circle.app_address, 8080).into(), "/leno/counters");
    assert_eq!(counters["calls"]["NOBODY_ADDR"]["failed"], 8, "{counters}");
    assert_eq!(counters["calls"]["CIRCLE_ADDR"]["succeeded"], 8, "{counters}");
}

#[test]
fn a_gateway_serves_https_with_the_certificate_of_the_manifests_secret() {
    let folder = folder(&[("manifests/shop.yaml", SHOP)]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example"])
        .args(["-keyout", &at("key.pem"), "-out", &at("cert.pem")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let indented = |name: &str| fs::read_to_string(at(name)).unwrap().replace('\n', "\n    ");
    let secret = format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: shop-tls, namespace: shop}}\nstringData:\n  \
         tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented("cert.pem"),
        indented("key.pem")
    );
    let listener = "  - {name: https, port: 443, protocol: HTTPS, hostname: shop.example, tls: {certificateRefs: [{name: shop-tls}]}}";
    let gateway = SHOP.replace(
        "  listeners: [{name: http, port: 80, protocol: HTTP}]",
        &format!("  listeners:\n  - {{name: http, port: 80, protocol: HTTP}}\n{listener}"),
    );
    fs::write(at("manifests/shop.yaml"), gateway).unwrap();
    fs::write(at("manifests/secret.yaml"), secret).unwrap();
    let (authority, manifests) = (at("cert.pem"), at("manifests"));
    let mesh = Up::start(folder, &["-f", &manifests], "");
    let https = eventually("the listener serves", || {
        let record = mesh.record()?;
        let listeners = record.clusters[0].gateways.first().filter(|it| it.ready)?.listeners.clone();
        listeners.into_iter().find(|it| it.protocol == "https")
    });
    let port = https.address.port();
    let curl = |host: &str| {
        let resolve = format!("{host}:{port}:{}", https.address.ip());
        let url = format!("https://{host}:{port}/");
        Command::new("curl")
            .args(["-sS", "--cacert", &authority, "--resolve", &resolve, &url])
            .output()
            .unwrap()
    };
    let answer = curl("shop.example");
    assert!(answer.status.success(), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("\"service\":\"web\""), "{answer:?}");
    let stranger = curl("other.example");
    assert!(!stranger.status.success(), "another host has no certificate: {stranger:?}");
    mesh.stop();
}
