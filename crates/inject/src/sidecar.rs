//! The containers and volumes that an injected pod gets.
//!
//! Invariant: the proxy meets the `restricted` Pod Security level by itself, whatever the pod's own security context; only the
//! capture init container needs more, which is `NET_ADMIN` alone.

use serde_json::{Map, Value, json};

use crate::{
    InjectionConfig, Resources,
    ask::Asked,
    contract::{CAPTURE_CONTAINER, HEALTH_PORT, METRICS_PORT, PROXY_CONTAINER, PROXY_UID, RAW_METRICS_PORT},
    duration,
};

const STATE: &str = "leno-state";
const TOKEN: &str = "leno-token";
const ROOT: &str = "leno-ca-root";

/// Seconds between two looks at whether the proxy has started: each one delays the application.
const STARTUP_PERIOD: u32 = 1;

/// The native sidecar.
pub(crate) fn proxy(
    config: &InjectionConfig,
    asked: &Asked,
    network: &str,
    probes: Map<String, Value>,
) -> Value {
    let Asked { resources, readiness, .. } = asked;
    let health = json!({"path": "/healthz/ready", "port": HEALTH_PORT, "scheme": "HTTP"});
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": config.image.name,
        "args": ["sidecar"],
        "restartPolicy": "Always",
        "ports": [{"name": "http-envoy-prom", "containerPort": RAW_METRICS_PORT, "protocol": "TCP"}],
        "env": environment(config, network, &proxy_config(asked, probes)),
        "resources": quantities(resources),
        "startupProbe": {
            "httpGet": health,
            "periodSeconds": STARTUP_PERIOD,
            "timeoutSeconds": 3,
            "failureThreshold": config.proxy.startup_seconds.max(1),
        },
        "readinessProbe": {
            "httpGet": health,
            "initialDelaySeconds": readiness.initial_delay,
            "periodSeconds": readiness.period,
            "timeoutSeconds": 3,
            "failureThreshold": readiness.failure_threshold,
        },
        // Not ready is no reason to restart: a proxy whose control plane is away serves on.
        "livenessProbe": {
            "tcpSocket": {"port": METRICS_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 3,
            "failureThreshold": 6,
        },
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": STATE, "mountPath": "/var/lib/leno"},
            {"name": TOKEN, "mountPath": "/var/run/secrets/tokens", "readOnly": true},
            {"name": ROOT, "mountPath": "/var/run/secrets/leno", "readOnly": true},
        ],
    });
    pulled(config, &mut container);
    container
}

/// The init container that captures traffic.
pub(crate) fn capture(config: &InjectionConfig, asked: &Asked) -> Value {
    let mut arguments = vec!["capture".to_owned()];
    arguments.extend(asked.captured.arguments());
    let mut container = json!({
        "name": CAPTURE_CONTAINER,
        "image": config.image.name,
        "args": arguments,
        "resources": quantities(&config.init_resources),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    pulled(config, &mut container);
    container
}

/// What the proxy keeps its state in, and what it proves itself and others by.
pub(crate) fn volumes() -> [Value; 3] {
    let token = json!({"serviceAccountToken": {"audience": "leno-ca", "expirationSeconds": 43200, "path": "leno-token"}});
    [
        json!({"name": STATE, "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}),
        json!({"name": TOKEN, "projected": {"sources": [token]}}),
        json!({"name": ROOT, "configMap": {"name": "leno-ca-root-cert"}}),
    ]
}

fn environment(config: &InjectionConfig, network: &str, proxy_config: &Value) -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("LENO_CLUSTER", &config.cluster),
        value("LENO_NETWORK", network),
        value("LENO_TRUST_DOMAIN", &config.trust_domain),
        value("LENO_CONTROL", &config.control),
        value("LENO_CONTROL_NAMESPACE", &config.system_namespace),
        // Kubernetes replaces `$(NAME)` in values and reads `$$` as `$`.
        value("LENO_PROXY_CONFIG", &proxy_config.to_string().replace('$', "$$")),
        // By this Istio's CNI plugin knows that a container `istio-proxy` is not its own, and leaves the pod's traffic alone.
        value("DISABLE_ENVOY", "true"),
    ])
}

fn proxy_config(asked: &Asked, probes: Map<String, Value>) -> Value {
    let mut config = json!({
        "concurrency": asked.concurrency,
        "drainDuration": duration::write(asked.drain),
        "logLevel": asked.log_level,
        "accessLog": asked.access_log,
    });
    if let Some(tracing) = &asked.tracing {
        config["tracing"] = json!(tracing);
    }
    if !probes.is_empty() {
        config["probes"] = Value::Object(probes);
    }
    config
}

fn quantities(resources: &Resources) -> Value {
    let Resources { requests, limits } = resources;
    let mut quantities = Map::new();
    for (field, values) in [("requests", requests), ("limits", limits)] {
        if !values.is_empty() {
            quantities.insert(field.to_owned(), json!(values));
        }
    }
    Value::Object(quantities)
}

fn pulled(config: &InjectionConfig, container: &mut Value) {
    if !config.image.pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(config.image.pull_policy);
    }
}
