//! `leno inject`, `leno install` and `leno uninstall` as users run them, without a cluster.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use leno_apis::yaml;
use leno_inject::{InjectionConfig, Namespace, review};
use serde_json::{Value, json};

const MANIFESTS: &str = r#"# A shop.
apiVersion: v1
kind: Namespace
metadata: {name: quiet, labels: {leno.dev/inject: disabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80, targetPort: http}], selector: {app: web}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  labels: {app: web, "on": "yes"}
  annotations: {proxy.istio.io/config: "concurrency: 2"}
spec:
  terminationGracePeriodSeconds: 45
  containers:
  - name: app
    image: shop/web:1
    command: ["sh", "-c", "echo '*'\nexec serve"]
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /ok, port: http}}
    livenessProbe: {exec: {command: ["true"]}}
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: cart, namespace: shop}
  spec: {template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: app, image: a}]}}}
- apiVersion: batch/v1
  kind: Job
  metadata: {name: tidy, namespace: quiet}
  spec: {template: {spec: {restartPolicy: Never, containers: [{name: app, image: a}]}}}
"#;

fn leno(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leno"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn printed(arguments: &[&str], input: &str) -> String {
    let output = leno(arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    yaml::documents(text).into_iter().map(|document| document.unwrap().to_json()).collect()
}

fn containers(pod: &Value) -> Vec<&str> {
    let list = pod["spec"]["initContainers"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|container| container["name"].as_str().unwrap()).collect()
}

#[test]
fn manifests_come_out_in_their_order_with_proxies_where_they_belong() {
    let output = leno(&["inject", "-f", "-"], MANIFESTS);
    let objects = documents(&String::from_utf8(output.stdout).unwrap());
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Namespace", "Service", "Pod", "List"]);
    assert_eq!(objects[..2], documents(MANIFESTS)[..2], "what has no pods stays");
    assert_eq!(containers(&objects[2]), ["leno-init", "istio-proxy"]);
    assert_eq!(containers(&objects[3]["items"][0]["spec"]["template"]), ["leno-init", "istio-proxy"]);
    assert_eq!(objects[3]["items"][1], documents(MANIFESTS)[3]["items"][1], "its namespace is disabled");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "-: Job quiet/tidy: no proxy: the namespace's label leno.dev/inject says no\n");
}

#[test]
fn a_pod_is_what_the_webhook_makes_of_it_byte_for_byte() {
    let pod = documents(MANIFESTS).remove(2);
    let namespace = Namespace {
        name: "shop".to_owned(),
        labels: [("leno.dev/inject".to_owned(), "enabled".to_owned())].into(),
    };
    let question = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "1", "operation": "CREATE", "namespace": "shop", "object": pod}});
    let config = InjectionConfig { cluster: "west".to_owned(), ..InjectionConfig::default() };
    let mut config = config;
    config.image.pull_policy = "IfNotPresent".to_owned();
    let answer = review(&config, &namespace, &question);
    let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
    let mut online = pod.clone();
    json_patch::patch(&mut online, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();

    let input = yaml::write(&pod);
    let offline = printed(&["inject", "-f", "-", "--set", "cluster=west", "-o", "yaml"], &input);
    assert_eq!(offline, yaml::write(&online));
    let offline = printed(&["inject", "-f", "-", "--set", "cluster=west", "-o", "json"], &input);
    assert_eq!(offline, serde_json::to_string_pretty(&online).unwrap() + "\n");
}

#[test]
fn what_is_injected_can_be_injected_again_and_stays() {
    let once = printed(&["inject", "-f", "-"], MANIFESTS);
    assert_eq!(printed(&["inject", "-f", "-"], &once), once);
}

#[test]
fn labels_of_namespaces_can_be_given() {
    let pods = |labels: &str| {
        let text =
            printed(&["inject", "-f", "-", "--namespace-labels", labels, "--set", "compat=istio"], MANIFESTS);
        containers(&documents(&text)[2]).len()
    };
    assert_eq!(pods("team=shop"), 0);
    assert_eq!(pods("team=shop,istio-injection=enabled"), 2);
    assert_eq!(pods("leno.dev/inject=disabled"), 0);
}

#[test]
fn a_refused_pod_prints_nothing_and_names_the_file_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), MANIFESTS).unwrap();
    fs::write(folder.path().join("b.yaml"), MANIFESTS.replace("concurrency: 2", "concurency: 2")).unwrap();
    let output = leno(&["inject", "-f", folder.path().to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("b.yaml: Pod shop/web: error:") && said.contains("did you mean concurrency?"),
        "{said}"
    );
    assert_eq!(leno(&["inject", "-f", "/nowhere"], "").status.code(), Some(2));
    assert_eq!(leno(&["inject", "-f", "-"], "a: b: c").status.code(), Some(2));
    assert_eq!(leno(&["inject", "-f", "-", "--set", "replica=1"], MANIFESTS).status.code(), Some(2));
}

#[test]
fn an_installation_is_printed_and_removed_in_reverse() {
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    fs::write(&values, "replicas: 3\nregion: eu\n").unwrap();
    let values = values.to_str().unwrap();
    let chosen = ["-f", values, "--set", "revision=canary", "--dry-run"];
    let installed = documents(&printed(&[&["install"], &chosen[..]].concat(), ""));
    let expected = {
        let files = vec![(String::new(), "replicas: 3\nregion: eu\nrevision: canary".to_owned())];
        leno_install::objects(&leno_install::values(&leno_install::Overrides { files, set: vec![] }).unwrap())
    };
    assert_eq!(installed, expected);
    let mut removed = documents(&printed(&[&["uninstall"], &chosen[..]].concat(), ""));
    removed.reverse();
    assert_eq!(removed, expected);
    assert_eq!(leno(&["install", "--dry-run", "--set", "replicas=0"], "").status.code(), Some(2));
}
