//! The chart, by the real Helm.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Output},
};

use leno_install::objects;
use serde_json::{Value, json};

use crate::{chart, documents, files, root, values_of};

/// Built by `tools/helm`.
fn helm(arguments: &[&str]) -> Output {
    let built = root().join(".venv/bin/helm");
    let program = std::env::var_os("LENO_HELM").map_or(built, PathBuf::from);
    let output = Command::new(&program).args(arguments).args(["--kube-version", "1.34.0"]).output();
    output.unwrap_or_else(|error| panic!("{}: {error}; run tools/helm .venv", program.display()))
}

fn templated(arguments: &[&str]) -> Output {
    let chart = chart();
    helm(&[&["template", "leno", chart.to_str().unwrap()], arguments].concat())
}

/// Objects by kind, namespace and name.
fn keyed(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let count = objects.len();
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"])
    };
    let keyed: BTreeMap<_, _> = objects.into_iter().map(|object| (key(&object), object)).collect();
    assert_eq!(keyed.len(), count, "an object twice");
    keyed
}

#[test]
fn the_chart_makes_the_objects_of_the_command_line_from_the_same_values() {
    for file in files() {
        let given = file.as_ref().map(|path| vec!["-f", path.to_str().unwrap()]).unwrap_or_default();
        let output = templated(&given);
        assert!(output.status.success(), "{file:?}: {}", String::from_utf8_lossy(&output.stderr));
        let theirs = keyed(documents(&String::from_utf8(output.stdout).unwrap()));
        let ours = keyed(objects(&values_of(file.as_ref(), &[])));
        assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{file:?}");
        for (key, ours) in ours {
            let difference = leno_inject::diff(&theirs[&key], &ours);
            assert!(theirs[&key] == ours, "{file:?}: {key}: from Helm's to ours: {difference:#?}");
        }
    }
}

#[test]
fn the_chart_is_without_faults_to_helms_linter() {
    let output = helm(&["lint", "--strict", chart().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn both_refuse_the_same_values() {
    for set in [
        "replica=3",
        "proxy.colour=blue",
        "replicas=0",
        "revision=Canary",
        "namespace=",
        "cluster=a_b",
        "compat=linkerd",
        "image.pullPolicy=Sometimes",
        "injection.capture=ebpf",
        "cni.binDir=opt/cni/bin",
        "cni.confDir=",
        "cni.namespace=Kube",
        "cni.resources.limits.memory=much",
        "proxy.drainDuration=45",
        "proxy.logLevel=loud",
        "proxy.concurrency=-1",
        "proxy.tracing.sampling=2",
        "proxy.resources.requests.cpu=lots",
        "resources.limits.memory=1 GB",
        "proxy.startupSeconds=0",
        "gateways.class=maybe",
        "trustDomain=UPPER",
        "eastWest.enabled=true",
        "eastWest.replicas=0",
        "discovery.expose=maybe",
        "discovery.service.colour=blue",
    ] {
        assert!(!templated(&["--set", set]).status.success(), "Helm takes {set}");
        let overrides = leno_install::Overrides { set: vec![set.to_owned()], ..Default::default() };
        assert!(leno_install::values(&overrides).is_err(), "we take {set}");
    }
}

#[test]
fn both_refuse_the_same_other_clusters() {
    let folder = tempfile::tempdir().unwrap();
    for peers in [
        "[{cluster: a_b, addresses: [east.example.com]}]",
        "[{cluster: east, addresses: []}]",
        "[{cluster: east}]",
        "[{cluster: east, addresses: ['https://east.example.com']}]",
        "[{cluster: east, addresses: [east.example.com], port: 1}]",
    ] {
        let (path, text) = (folder.path().join("peers.yaml"), format!("peers: {peers}"));
        std::fs::write(&path, &text).unwrap();
        assert!(!templated(&["-f", path.to_str().unwrap()]).status.success(), "Helm takes {text}");
        let files = vec![("peers.yaml".to_owned(), text.clone())];
        let overrides = leno_install::Overrides { files, ..Default::default() };
        assert!(leno_install::values(&overrides).is_err(), "we take {text}");
    }
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = documents(&std::fs::read_to_string(chart().join("Chart.yaml")).unwrap()).remove(0);
    assert_eq!(chart["appVersion"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!(chart["version"], json!(env!("CARGO_PKG_VERSION")));
}
