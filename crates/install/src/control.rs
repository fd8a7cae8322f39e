//! The control plane's pods, their configuration and what leads to them.
//!
//! Invariant: the pods meet the `restricted` Pod Security level and are made anew when their configuration changes.

use leno_inject::Resources;
use serde_json::{Map, Value, json};

use crate::{Compat, Names, Values, checksum::adler32};

/// Key of the configuration in its ConfigMap, and name of its file.
const FILE: &str = "config.json";

/// ConfigMap, Service, PodDisruptionBudget, Deployment.
pub(crate) fn objects(values: &Values, names: &Names) -> Vec<Value> {
    let config = configuration(values);
    vec![
        names.namespaced("v1", "ConfigMap", &names.config, json!({"data": {FILE: config}})),
        service(names),
        budget(names),
        deployment(values, names, &adler32(&config)),
    ]
}

/// What the control plane is told at its start, as the text that Helm's `toPrettyJson` would give.
fn configuration(values: &Values) -> String {
    let config = json!({
        "cluster": values.cluster,
        "compat": if values.compat == Compat::Istio { "istio" } else { "none" },
        "gateways": {"class": values.gateways.class, "deploy": values.gateways.deploy,
            "secretNamespaces": values.gateways.secret_namespaces},
        "injection": values.injection(),
        "namespace": values.namespace,
        "network": values.network,
        "peers": values.peers,
        "region": values.region,
        "revision": values.revision,
        "tags": values.tags,
        "trustDomain": values.trust_domain,
    });
    json_text(config, true)
}

/// The text that Helm's `toPrettyJson`, or `toJson`, would give.
pub(crate) fn json_text(value: Value, pretty: bool) -> String {
    let value = sorted(value);
    let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
    let text = text.unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Keys in order, and whole numbers without a fraction, as Go writes them.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(Map::from_iter(fields))
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Number(number) => match number.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "only whole numbers far below 2^53")]
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                json!(float as i64)
            }
            _ => Value::Number(number),
        },
        other => other,
    }
}

fn service(names: &Names) -> Value {
    let port = |name: &str, port: u16, target: &str| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
    let spec = json!({
        "type": "ClusterIP",
        "selector": names.selector(),
        "ports": [
            port("grpc-xds", 15012, "grpc-xds"),
            port("https-webhook", 443, "https-webhook"),
            port("http-monitoring", 15014, "http-monitoring"),
        ],
    });
    names.namespaced("v1", "Service", &names.control, json!({ "spec": spec }))
}

fn budget(names: &Names) -> Value {
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": names.selector()}});
    names.namespaced("policy/v1", "PodDisruptionBudget", &names.control, json!({ "spec": spec }))
}

fn deployment(values: &Values, names: &Names, checksum: &str) -> Value {
    let mut labels = names.labels();
    labels["leno.dev/inject"] = json!("disabled");
    let spec = json!({
        "replicas": values.replicas,
        "selector": {"matchLabels": names.selector()},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": labels, "annotations": {"leno.dev/config-checksum": checksum}},
            "spec": pod(values, names),
        },
    });
    names.namespaced("apps/v1", "Deployment", &names.control, json!({ "spec": spec }))
}

fn pod(values: &Values, names: &Names) -> Value {
    let mut pod = json!({
        "serviceAccountName": names.control,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(values)],
        "volumes": [
            {"name": "config", "configMap": {"name": names.config}},
            {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ],
    });
    if let (Value::Object(pod), Value::Object(spread)) = (&mut pod, spread(&names.selector())) {
        pod.extend(spread);
    }
    scheduled(values, &mut pod);
    if !values.image.pull_secrets.is_empty() {
        let secrets = values.image.pull_secrets.iter().map(|name| json!({ "name": name }));
        pod["imagePullSecrets"] = secrets.collect();
    }
    pod
}

/// Replicas that like to be apart: fields of a pod's specification.
pub(crate) fn spread(selector: &Value) -> Value {
    let labels = json!({ "matchLabels": selector });
    let apart = json!({"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"});
    json!({
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": apart},
        ]}},
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": labels,
        }],
    })
}

/// Where the installation's own pods may run.
pub(crate) fn scheduled(values: &Values, pod: &mut Value) {
    if !values.priority_class_name.is_empty() {
        pod["priorityClassName"] = json!(values.priority_class_name);
    }
    if !values.node_selector.is_empty() {
        pod["nodeSelector"] = json!(values.node_selector);
    }
    if !values.tolerations.is_empty() {
        pod["tolerations"] = json!(values.tolerations);
    }
}

/// Requests and limits, without those that are empty.
pub(crate) fn quantities(resources: &Resources) -> Value {
    let Resources { requests, limits } = resources;
    let given = [("requests", requests), ("limits", limits)].into_iter().filter(|(_, all)| !all.is_empty());
    Value::Object(given.map(|(field, all)| (field.to_owned(), json!(all))).collect())
}

fn container(values: &Values) -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "http-monitoring"},
            "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures,
        })
    };
    json!({
        "name": "leno-control",
        "image": values.image.full(&values.image.control),
        "imagePullPolicy": values.image.pull_policy,
        "args": ["kubernetes", "--config", format!("/etc/leno/{FILE}")],
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
            {"name": "LENO_LOG", "value": values.log_level},
        ],
        "ports": [
            {"name": "grpc-xds", "containerPort": 15012, "protocol": "TCP"},
            {"name": "https-webhook", "containerPort": 15017, "protocol": "TCP"},
            {"name": "http-monitoring", "containerPort": 15014, "protocol": "TCP"},
        ],
        "startupProbe": probe("/healthz", 1, 60),
        "readinessProbe": probe("/readyz", 2, 3),
        "livenessProbe": probe("/healthz", 10, 6),
        "resources": values.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/leno", "readOnly": true},
            {"name": "state", "mountPath": "/var/lib/leno"},
        ],
    })
}
