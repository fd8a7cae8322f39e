//! The list of objects, in the order in which they are to be created.
//!
//! Invariant: an object comes after those that it needs; the webhook comes last of those that others can feel, so that no pod waits
//! for a control plane that is not there yet.

use leno_inject::webhook::webhooks;
use serde_json::{Map, Value, json};

use crate::{Values, clusters, control, node, rbac};

/// The names of an installation's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The control plane's namespace.
    pub namespace: String,
    /// Deployment, Service, ServiceAccount, Role, PodDisruptionBudget and Lease.
    pub control: String,
    /// ConfigMap of the control plane's configuration.
    pub config: String,
    /// ClusterRole and ClusterRoleBinding.
    pub cluster_wide: String,
    /// Role and RoleBinding for Secrets of other namespaces.
    pub secrets: String,
    /// Service by which other clusters reach the control plane.
    pub peers: String,
    /// ServiceAccount, PodDisruptionBudget, Deployment and Service of the east-west gateway.
    pub east_west: String,
    /// MutatingWebhookConfiguration.
    pub webhook: String,
    /// DaemonSet, ServiceAccount and Role of the nodes' agent; the plugin's program and its socket's folder on the nodes.
    pub agent: String,
    revision: String,
}

impl Names {
    /// The names that values give.
    #[must_use]
    pub fn of(values: &Values) -> Self {
        let Values { namespace, revision, .. } = values;
        let suffix = if revision == "default" { String::new() } else { format!("-{revision}") };
        Self {
            namespace: namespace.clone(),
            control: format!("leno-control{suffix}"),
            config: format!("leno-config{suffix}"),
            cluster_wide: format!("leno-control{suffix}-{namespace}"),
            secrets: format!("leno-control{suffix}-gateway-secrets"),
            peers: format!("leno-control{suffix}-peers"),
            east_west: format!("leno-eastwest{suffix}"),
            webhook: format!("leno-sidecar-injector{suffix}-{namespace}"),
            agent: format!("leno-cni{suffix}"),
            revision: revision.clone(),
        }
    }

    /// Label `app.kubernetes.io/instance` of all objects.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Labels by which the control plane's pods are found.
    pub(crate) fn selector(&self) -> Value {
        json!({"app": "leno-control", "app.kubernetes.io/instance": self.revision})
    }

    /// Labels of every object of the control plane.
    pub(crate) fn labels(&self) -> Value {
        self.labels_of("leno-control")
    }

    /// Labels by which the pods of the nodes' agent are found.
    pub(crate) fn agent_selector(&self) -> Value {
        json!({"app": "leno-cni", "app.kubernetes.io/instance": self.revision})
    }

    /// Labels of the agent's objects.
    pub(crate) fn agent_labels(&self) -> Value {
        self.labels_of("leno-cni")
    }

    fn labels_of(&self, app: &str) -> Value {
        json!({
            "app": app,
            "app.kubernetes.io/name": app,
            "app.kubernetes.io/instance": self.revision,
            "app.kubernetes.io/part-of": "leno",
            "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// An object of the control plane's namespace.
    pub(crate) fn namespaced(&self, version: &str, kind: &str, name: &str, fields: Value) -> Value {
        let metadata = json!({"name": name, "namespace": self.namespace, "labels": self.labels()});
        object(version, kind, metadata, fields)
    }

    /// An object of the agent's namespace.
    pub(crate) fn of_agent(&self, namespace: &str, version: &str, kind: &str, fields: Value) -> Value {
        let metadata = json!({"name": self.agent, "namespace": namespace, "labels": self.agent_labels()});
        object(version, kind, metadata, fields)
    }

    /// An object without a namespace.
    pub(crate) fn cluster(&self, version: &str, kind: &str, name: &str, fields: Value) -> Value {
        object(version, kind, json!({"name": name, "labels": self.labels()}), fields)
    }
}

fn object(version: &str, kind: &str, metadata: Value, fields: Value) -> Value {
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!(version));
    object.insert("kind".to_owned(), json!(kind));
    object.insert("metadata".to_owned(), metadata);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

/// The objects of an installation, in the order in which they are to be created (and, reversed, deleted).
#[must_use]
pub fn objects(values: &Values) -> Vec<Value> {
    let names = Names::of(values);
    let mut objects = Vec::new();
    if values.create_namespace {
        objects.push(namespace(values, &names));
    }
    objects.extend(rbac::objects(values, &names));
    objects.extend(control::objects(values, &names));
    objects.extend(node::objects(values, &names));
    objects.extend(clusters::objects(values, &names));
    if values.gateways.class && values.revision == "default" {
        objects.push(gateway_class(&names));
    }
    objects.push(webhook(values, &names));
    objects
}

/// Not enrolled, and held to the `restricted` level: nothing of the control plane needs more.
fn namespace(values: &Values, names: &Names) -> Value {
    let mut labels = json!({
        "leno.dev/inject": "disabled",
        "pod-security.kubernetes.io/enforce": "restricted",
        "app.kubernetes.io/part-of": "leno",
    });
    if !values.network.is_empty() {
        labels[clusters::NETWORK] = json!(values.network);
    }
    object("v1", "Namespace", json!({"name": names.namespace, "labels": labels}), json!({}))
}

fn gateway_class(names: &Names) -> Value {
    let spec = json!({
        "controllerName": "leno.dev/gateway-controller",
        "description": "Gateways whose proxies and Services Leno runs",
    });
    names.cluster("gateway.networking.k8s.io/v1", "GatewayClass", "leno", json!({ "spec": spec }))
}

/// The webhook, without `caBundle`: the control plane fills it in, and an upgrade leaves it alone.
fn webhook(values: &Values, names: &Names) -> Value {
    let service =
        json!({"name": names.control, "namespace": names.namespace, "path": "/inject", "port": 443});
    let pods = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced",
    });
    let webhooks: Vec<Value> = webhooks(&values.injection())
        .into_iter()
        .map(|webhook| {
            json!({
                "name": webhook.name,
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": service},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "reinvocationPolicy": "Never",
                "matchPolicy": "Equivalent",
                "timeoutSeconds": 10,
                "namespaceSelector": webhook.namespace_selector,
                "objectSelector": webhook.object_selector,
                "rules": [pods],
            })
        })
        .collect();
    let fields = json!({ "webhooks": webhooks });
    names.cluster("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", &names.webhook, fields)
}
