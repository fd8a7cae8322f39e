//! Injection as its users see it: pods in, pods out.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod admission;
mod annotations;
mod contents;
mod decision;
mod manifests;
mod probes;

use leno_inject::{Injected, InjectionConfig, Namespace, Outcome, Refusal, inject};
use serde_json::{Value, json};

/// A namespace with labels, written `key=value key=value`.
fn namespace(labels: &str) -> Namespace {
    Namespace { name: "shop".to_owned(), labels: pairs(labels).collect() }
}

fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split_whitespace().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    })
}

fn enrolled() -> Namespace {
    namespace("leno.dev/inject=enabled")
}

/// A pod with these labels and annotations.
fn pod(labels: &str, annotations: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<_, _> = pairs(labels).map(|(key, value)| (key, json!(value))).collect();
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "shop/web:1", "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

fn outcome(pod: &Value) -> Result<Outcome, Refusal> {
    inject(&InjectionConfig::default(), &enrolled(), pod, "web")
}

fn injected_with(config: &InjectionConfig, pod: &Value) -> Injected {
    match inject(config, &enrolled(), pod, "web") {
        Ok(Outcome::Injected(injected)) => injected,
        other => panic!("not injected: {other:?}"),
    }
}

fn injected(pod: &Value) -> Injected {
    injected_with(&InjectionConfig::default(), pod)
}

fn refused(pod: &Value) -> String {
    match outcome(pod) {
        Err(refusal) => refusal.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn init_container<'p>(pod: &'p Value, name: &str) -> &'p Value {
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    containers.iter().find(|container| container["name"] == name).unwrap()
}

/// The proxy's configuration, as its environment gives it.
fn proxy_config(pod: &Value) -> Value {
    let environment = init_container(pod, "istio-proxy")["env"].as_array().unwrap();
    let variable = environment.iter().find(|variable| variable["name"] == "LENO_PROXY_CONFIG").unwrap();
    serde_json::from_str(&variable["value"].as_str().unwrap().replace("$$", "$")).unwrap()
}
