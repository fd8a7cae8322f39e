//! What is made for a mesh of several clusters.

use leno_install::{Overrides, objects};
use serde_json::{Value, json};

use crate::{default_objects, named, one, values_of};

const NETWORK: &str = "topology.istio.io/network";

fn of(set: &[&str]) -> Vec<Value> {
    objects(&values_of(None, set))
}

#[test]
fn nothing_is_open_to_other_clusters_unless_it_is_asked_for() {
    let objects = default_objects();
    one(&objects, "Service");
    one(&objects, "Deployment");
    assert_eq!(one(&objects, "Namespace")["metadata"]["labels"].get(NETWORK), None);
}

#[test]
fn the_control_plane_is_exposed_by_its_discovery_port_alone() {
    let objects = of(&[
        "discovery.expose=true",
        "discovery.service.annotations.a=b",
        "discovery.service.sourceRanges=[10.0.0.0/8]",
    ]);
    let service = named(&objects, "Service", "leno-control-peers");
    let ports: Vec<_> = service["spec"]["ports"].as_array().unwrap().iter().map(|it| &it["port"]).collect();
    assert_eq!(ports, [15012]);
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["spec"]["loadBalancerSourceRanges"], json!(["10.0.0.0/8"]));
    assert_eq!(service["metadata"]["annotations"], json!({"a": "b"}));
    let own = named(&objects, "Service", "leno-control");
    assert_eq!(
        (&own["spec"]["type"], &own["spec"]["selector"]),
        (&json!("ClusterIP"), &service["spec"]["selector"])
    );
}

#[test]
fn the_gateway_of_a_network_is_found_by_its_label_and_has_no_right() {
    let objects = of(&["eastWest.enabled=true", "network=one"]);
    let service = named(&objects, "Service", "leno-eastwest");
    assert_eq!(service["metadata"]["labels"][NETWORK], "one");
    assert_eq!(one(&objects, "Namespace")["metadata"]["labels"][NETWORK], "one");
    let ports: Vec<_> = service["spec"]["ports"].as_array().unwrap().iter().map(|it| &it["port"]).collect();
    assert_eq!(ports, [15443], "metrics are nobody's business there");
    let pod = &named(&objects, "Deployment", "leno-eastwest")["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["istio"], "eastwestgateway");
    assert_eq!(pod["metadata"]["labels"]["security.istio.io/tlsMode"], "istio");
    assert_eq!(pod["spec"]["serviceAccountName"], "leno-eastwest");
    let account = named(&objects, "ServiceAccount", "leno-eastwest");
    assert_eq!(account["automountServiceAccountToken"], false);
    let bound = objects.iter().filter(|it| it["roleRef"].is_object());
    assert!(bound.flat_map(|it| it["subjects"].as_array().unwrap()).all(|it| it["name"] != "leno-eastwest"));
    assert_eq!(pod["spec"]["containers"][0]["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
}

#[test]
fn the_gateways_settings_are_those_of_other_proxies() {
    let values = values_of(
        None,
        &[
            "eastWest.enabled=true",
            "network=one",
            "proxy.tracing.endpoint=http://o/$x&y",
            "proxy.logLevel=warn",
        ],
    );
    let objects = objects(&values);
    let pod = &named(&objects, "Deployment", "leno-eastwest")["spec"]["template"]["spec"];
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    let text =
        variables.iter().find(|it| it["name"] == "LENO_PROXY_CONFIG").unwrap()["value"].as_str().unwrap();
    assert!(text.contains("http://o/$$x"), "Kubernetes makes `$` of `$$`: {text}");
    let settings: Value = serde_json::from_str(&text.replace("$$", "$")).unwrap();
    assert_eq!(settings["tracing"]["endpoint"], "http://o/$x&y");
    assert_eq!((&settings["logLevel"], &settings["accessLog"]), (&json!("warn"), &json!("off")));
}

#[test]
fn clusters_that_cannot_be_are_refused_with_the_reason() {
    let refusal = |text: &str| {
        let files = vec![("mine.yaml".to_owned(), text.to_owned())];
        leno_install::values(&Overrides { files, ..Overrides::default() }).unwrap_err().to_string()
    };
    let itself = refusal("{cluster: west, peers: [{cluster: west, addresses: [a]}]}");
    assert!(itself.contains("west is this cluster"), "{itself}");
    let twice = refusal("peers: [{cluster: east, addresses: [a]}, {cluster: east, addresses: [b]}]");
    assert!(twice.contains("east is there twice"), "{twice}");
    let unnamed = refusal("eastWest: {enabled: true}");
    assert!(unnamed.contains("`network` names none"), "{unnamed}");
}
