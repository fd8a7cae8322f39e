//! What the control plane may do, and nothing more. `docs/reference/rbac.md` has the reason of each line.
//!
//! Invariants: no wildcard, no `delete`, no `escalate`, `bind` or `impersonate`; what it writes is named where Kubernetes can name it
//! (creation cannot be limited to a name).

use serde_json::{Value, json};

use crate::{Names, Values};

const READ: [&str; 3] = ["get", "list", "watch"];

/// ServiceAccount, roles and bindings.
pub(crate) fn objects(values: &Values, names: &Names) -> Vec<Value> {
    let mut objects = vec![
        names.namespaced(
            "v1",
            "ServiceAccount",
            &names.control,
            json!({"automountServiceAccountToken": true}),
        ),
        names.cluster(
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            &names.cluster_wide,
            json!({"rules": cluster_rules(values, names)}),
        ),
        names.cluster(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            &names.cluster_wide,
            binding(names, "ClusterRole", &names.cluster_wide),
        ),
        names.namespaced(
            "rbac.authorization.k8s.io/v1",
            "Role",
            &names.control,
            json!({"rules": own_rules(names)}),
        ),
        names.namespaced(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            &names.control,
            binding(names, "Role", &names.control),
        ),
    ];
    for namespace in listed(values) {
        let name = names.secrets.as_str();
        let metadata = json!({"name": name, "namespace": namespace, "labels": names.labels()});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": metadata, "rules": [rule("", &["secrets"], &READ)],
        });
        let mut bound = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata});
        if let (Some(bound), Some(binding)) =
            (bound.as_object_mut(), binding(names, "Role", name).as_object())
        {
            bound.extend(binding.clone());
        }
        objects.extend([role, bound]);
    }
    objects
}

fn all_secrets(values: &Values) -> bool {
    values.gateways.secret_namespaces.iter().any(|namespace| namespace == "*")
}

/// Namespaces whose Secrets may be read one by one.
fn listed(values: &Values) -> Vec<&str> {
    if all_secrets(values) {
        Vec::new()
    } else {
        values.gateways.secret_namespaces.iter().map(String::as_str).collect()
    }
}

fn binding(names: &Names, kind: &str, role: &str) -> Value {
    json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": names.control, "namespace": names.namespace}],
    })
}

fn cluster_rules(values: &Values, names: &Names) -> Vec<Value> {
    let mut rules = vec![
        rule("", &["namespaces", "nodes", "pods", "services"], &READ),
        rule("discovery.k8s.io", &["endpointslices"], &READ),
        rule("", &["configmaps"], &["create"]),
        named("", "configmaps", &["leno-ca-root-cert"], &["get", "patch"]),
        rule("gateway.networking.k8s.io", &GATEWAY_API, &READ),
        rule("gateway.networking.k8s.io", &statuses(&GATEWAY_API_STATUS), &["patch"]),
        rule("networking.istio.io", &NETWORKING, &READ),
        rule("networking.istio.io", &statuses(&NETWORKING), &["patch"]),
        rule("security.istio.io", &SECURITY, &READ),
        rule("security.istio.io", &statuses(&SECURITY), &["patch"]),
        rule("telemetry.istio.io", &["telemetries"], &READ),
        rule("extensions.istio.io", &["trafficextensions", "wasmplugins"], &READ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
        named(
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            &[&names.webhook],
            &["get", "patch"],
        ),
    ];
    if all_secrets(values) {
        rules.push(rule("", &["secrets"], &READ));
    }
    if values.gateways.deploy {
        rules.push(rule("apps", &["deployments"], &["get", "create", "patch"]));
        rules.push(rule("", &["configmaps"], &["get"]));
        rules.push(rule("", &["services"], &["create", "patch"]));
        rules.push(rule("", &["serviceaccounts"], &["get", "create", "patch"]));
    }
    rules
}

/// Within the control plane's own namespace.
fn own_rules(names: &Names) -> Vec<Value> {
    vec![
        named("", "secrets", &["cacerts", "leno-ca"], &["get"]),
        rule("", &["secrets"], &["create"]),
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named("coordination.k8s.io", "leases", &[&names.control], &["get", "update"]),
    ]
}

const GATEWAY_API: [&str; 10] = [
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "referencegrants",
    "tcproutes",
    "tlsroutes",
    "udproutes",
];
const GATEWAY_API_STATUS: [&str; 9] = [
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "tcproutes",
    "tlsroutes",
    "udproutes",
];
const NETWORKING: [&str; 9] = [
    "destinationrules",
    "envoyfilters",
    "gateways",
    "proxyconfigs",
    "serviceentries",
    "sidecars",
    "virtualservices",
    "workloadentries",
    "workloadgroups",
];
const SECURITY: [&str; 3] = ["authorizationpolicies", "peerauthentications", "requestauthentications"];

fn statuses(resources: &[&str]) -> Vec<String> {
    resources.iter().map(|resource| format!("{resource}/status")).collect()
}

fn rule<R: AsRef<str> + serde::Serialize>(group: &str, resources: &[R], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "resourceNames": names, "verbs": verbs})
}
