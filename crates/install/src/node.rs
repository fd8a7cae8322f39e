//! The agent of each node, which captures where no pod may: only with `injection.capture: cni` (docs/adr/0019-cni.md).
//!
//! Invariants: it has the two capabilities that it needs and the folders that it writes, and no right but to ask whether it is being
//! removed; it starts without what it keeps in place (`hostNetwork`), or nothing could mend that.

use leno_inject::{Capture, contract::SYSTEM_NAMESPACES};
use serde_json::{Value, json};

use crate::{Names, Values};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// ServiceAccount, Role, RoleBinding, DaemonSet.
pub(crate) fn objects(values: &Values, names: &Names) -> Vec<Value> {
    if values.injection.capture != Capture::Cni {
        return Vec::new();
    }
    let (name, namespace) = (&names.agent, &values.cni.namespace);
    let object = |version: &str, kind: &str, fields: Value| names.of_agent(namespace, version, kind, fields);
    let rules = json!([
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": [name], "verbs": ["get"]},
    ]);
    vec![
        object("v1", "ServiceAccount", json!({"automountServiceAccountToken": true})),
        object(RBAC, "Role", json!({ "rules": rules })),
        object(
            RBAC,
            "RoleBinding",
            json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            }),
        ),
        object("apps/v1", "DaemonSet", json!({"spec": daemon_set(values, names)})),
    ]
}

/// Namespaces whose pods are never captured: what a cluster needs to work must not wait for an agent.
fn excluded(values: &Values) -> String {
    let mut namespaces: Vec<&str> = SYSTEM_NAMESPACES.to_vec();
    for namespace in [values.namespace.as_str(), values.cni.namespace.as_str()] {
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    namespaces.join(",")
}

fn daemon_set(values: &Values, names: &Names) -> Value {
    let mut labels = names.agent_labels();
    labels["leno.dev/inject"] = json!("disabled");
    json!({
        "selector": {"matchLabels": names.agent_selector()},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": labels}, "spec": pod(values, names)},
    })
}

fn pod(values: &Values, names: &Names) -> Value {
    let cni = &values.cni;
    let folder =
        |name: &str, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": path, "type": kind}});
    let mut pod = json!({
        "serviceAccountName": names.agent,
        "hostNetwork": true,
        "terminationGracePeriodSeconds": 30,
        "containers": [container(values, names)],
        "volumes": [
            folder("bin", &cni.bin_dir, "Directory"),
            folder("conf", &cni.conf_dir, "Directory"),
            folder("run", &folder_of(names), "DirectoryOrCreate"),
        ],
    });
    if !cni.priority_class_name.is_empty() {
        pod["priorityClassName"] = json!(cni.priority_class_name);
    }
    if !cni.node_selector.is_empty() {
        pod["nodeSelector"] = json!(cni.node_selector);
    }
    if !cni.tolerations.is_empty() {
        pod["tolerations"] = json!(cni.tolerations);
    }
    if !values.image.pull_secrets.is_empty() {
        let secrets = values.image.pull_secrets.iter().map(|name| json!({ "name": name }));
        pod["imagePullSecrets"] = secrets.collect();
    }
    pod
}

/// Of the socket, on the node and in the pod.
fn folder_of(names: &Names) -> String {
    format!("/run/{}", names.agent)
}

fn container(values: &Values, names: &Names) -> Value {
    let socket = format!("--socket={}/agent.sock", folder_of(names));
    json!({
        "name": "leno-cni",
        "image": values.image.full(&values.image.proxy),
        "imagePullPolicy": values.image.pull_policy,
        "command": ["/usr/bin/leno-cni-agent"],
        "args": [
            "run",
            format!("--name={}", names.agent),
            "--bin-dir=/host/bin",
            "--conf-dir=/host/conf",
            socket,
            format!("--revision={}", values.revision),
            format!("--exclude-namespaces={}", excluded(values)),
            format!("--daemon-set={}/{}", values.cni.namespace, names.agent),
        ],
        "env": [{"name": "LENO_LOG", "value": values.log_level}],
        "readinessProbe": {
            "exec": {"command": ["/usr/bin/leno-cni-agent", "ready", socket]},
            "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "resources": values.cni.resources,
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            // To enter a pod's network namespace, and to write rules there.
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "SYS_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "bin", "mountPath": "/host/bin"},
            {"name": "conf", "mountPath": "/host/conf"},
            {"name": "run", "mountPath": folder_of(names)},
        ],
    })
}
