//! What several clusters as one mesh need beyond the control plane's own objects: a way in for other control planes, and the
//! gateway through which mTLS of other networks comes.
//!
//! Invariant: nothing here is made unless it is asked for; the gateway has no right in the cluster, and its pods meet the
//! `restricted` Pod Security level.

use leno_inject::gateway_pod;
use serde_json::{Value, json};

use crate::{
    Names, Values,
    control::{json_text, quantities, scheduled, spread},
    values::LoadBalancer,
};

/// Istio's label of the Service of a network's gateway, and of the namespace of a network's control plane.
pub(crate) const NETWORK: &str = "topology.istio.io/network";
/// A proxy ends by itself, when it has drained; a drain that would be longer is cut.
const GRACE_SECONDS: u32 = 300;

/// The Service of our discovery for other clusters, and the east-west gateway, as far as they are asked for.
pub(crate) fn objects(values: &Values, names: &Names) -> Vec<Value> {
    let mut objects = Vec::new();
    if values.discovery.expose {
        let ports = json!([port("grpc-xds", 15012, json!("grpc-xds"))]);
        let service = load_balancer(&values.discovery.service, names.selector(), ports);
        let mut service = names.namespaced("v1", "Service", &names.peers, service);
        annotate(&mut service, &values.discovery.service);
        objects.push(service);
    }
    if values.east_west.enabled {
        objects.extend(east_west(values, names));
    }
    objects
}

fn east_west(values: &Values, names: &Names) -> [Value; 4] {
    let name = names.east_west.as_str();
    let selector = json!({"app": "leno-eastwest", "app.kubernetes.io/instance": names.revision()});
    let object = |version: &str, kind: &str, fields: Value| {
        let mut object = names.namespaced(version, kind, name, fields);
        object["metadata"]["labels"] = labels(names);
        object
    };
    let ports = json!([port("tls", 15443, json!(15443))]);
    let given = &values.east_west.service;
    let mut service = object("v1", "Service", load_balancer(given, selector.clone(), ports));
    service["metadata"]["labels"][NETWORK] = json!(values.network);
    annotate(&mut service, given);
    let budget = json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}}});
    [
        object("v1", "ServiceAccount", json!({"automountServiceAccountToken": false})),
        object("policy/v1", "PodDisruptionBudget", budget),
        object("apps/v1", "Deployment", deployment(values, names, &selector)),
        service,
    ]
}

fn labels(names: &Names) -> Value {
    let mut labels = names.labels();
    labels["app"] = json!("leno-eastwest");
    labels["app.kubernetes.io/name"] = json!("leno-eastwest");
    labels
}

fn deployment(values: &Values, names: &Names, selector: &Value) -> Value {
    let mut labels = labels(names);
    for (key, value) in [
        // By these two the control plane knows the pods: as a gateway between networks, and as proxies.
        ("istio", "eastwestgateway"),
        ("security.istio.io/tlsMode", "istio"),
        ("leno.dev/inject", "disabled"),
        ("sidecar.istio.io/inject", "false"),
    ] {
        labels[key] = json!(value);
    }
    let annotations = json!({
        "prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
    });
    json!({"spec": {
        "replicas": values.east_west.replicas,
        "selector": {"matchLabels": selector},
        // No replica leaves before another serves.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": pod(values, names, selector),
        },
    }})
}

fn pod(values: &Values, names: &Names, selector: &Value) -> Value {
    // Each of the pods is known by its own name.
    let mut pod = gateway_pod(&values.injection(), "$(POD_NAMESPACE)/$(POD_NAME)", &names.east_west);
    pod["terminationGracePeriodSeconds"] = json!(GRACE_SECONDS);
    if let (Value::Object(pod), Value::Object(spread)) = (&mut pod, spread(selector)) {
        pod.extend(spread);
    }
    let proxy = &mut pod["containers"][0];
    proxy["resources"] = quantities(&values.east_west.resources);
    for variable in proxy["env"].as_array_mut().into_iter().flatten() {
        if variable["name"] == "LENO_PROXY_CONFIG" {
            variable["value"] = json!(settings(values));
        }
    }
    scheduled(values, &mut pod);
    pod
}

/// The proxy's settings, as the text that Helm's `toJson` would give; Kubernetes reads `$$` as `$`.
fn settings(values: &Values) -> String {
    let proxy = &values.proxy;
    let mut settings = json!({
        "accessLog": proxy.access_log,
        "concurrency": proxy.concurrency,
        "drainDuration": proxy.drain_duration,
        "logLevel": proxy.log_level,
    });
    if !proxy.tracing.endpoint.is_empty() {
        settings["tracing"] = json!(proxy.tracing);
    }
    json_text(settings, false).replace('$', "$$")
}

fn load_balancer(given: &LoadBalancer, selector: Value, ports: Value) -> Value {
    let mut spec = json!({"type": "LoadBalancer", "selector": selector, "ports": ports});
    if !given.source_ranges.is_empty() {
        spec["loadBalancerSourceRanges"] = json!(given.source_ranges);
    }
    json!({ "spec": spec })
}

fn annotate(service: &mut Value, given: &LoadBalancer) {
    if !given.annotations.is_empty() {
        service["metadata"]["annotations"] = json!(given.annotations);
    }
}

fn port(name: &str, number: u16, target: Value) -> Value {
    json!({"name": name, "port": number, "targetPort": target, "protocol": "TCP"})
}
