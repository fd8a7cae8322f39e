//! A Gateway's parameters: a ConfigMap whose keys hold changes to the objects that run it, as with Istio's gateways.
//!
//! `deployment`, `service` and `serviceAccount` are merged as `kubectl patch --type=strategic` does: maps key by key, `null` takes
//! away, lists of named things item by item. Invariants: pure; what makes the objects this Gateway's (names, owner, selector,
//! account) stays; what cannot be used is an error that names key and field, and then nothing changes.

use std::collections::BTreeMap;

use leno_apis::yaml;
use serde_json::{Map, Value, json};

/// Changes to the ServiceAccount, the Deployment and the Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters([Option<Value>; 3]);

/// In the order of the objects.
const KEYS: [&str; 3] = ["serviceAccount", "deployment", "service"];

/// What changes must leave as it is: by it the objects are found, and the proxy is who it says.
const FIXED: [&[&str]; 9] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "ownerReferences"],
    &["spec", "selector"],
    &["spec", "template", "metadata", "labels", super::render::GATEWAY_NAME],
    &["spec", "template", "spec", "serviceAccountName"],
    &["spec", "template", "spec", "serviceAccount"],
];

/// By what the items of a list are told apart: the API's merge keys for the lists of the three kinds.
const MERGE_KEYS: [(&str, &str); 9] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("sysctls", "name"),
    ("volumeMounts", "mountPath"),
    ("topologySpreadConstraints", "topologyKey"),
    ("ports", "port"),
];
/// The port of a container, where it is the merge key of `ports`.
const CONTAINER_PORT: &str = "containerPort";

/// Why parameters cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("parametersRef is {group:?} {kind}; it can be a ConfigMap of the core group")]
    Kind { group: String, kind: String },
    #[error("there is no ConfigMap {name} in the Gateway's namespace")]
    Missing { name: String },
    #[error(
        "ConfigMap {name}: key {key:?} is none of deployment, service and serviceAccount (an autoscaler or a disruption budget can \
         be an object of its own, for the Deployment)"
    )]
    Key { name: String, key: String },
    #[error("ConfigMap {name}, key {key}, line {line}: {message}")]
    Syntax { name: String, key: String, line: u32, message: String },
    #[error("ConfigMap {name}, key {key}: {field} is not for parameters to change")]
    Fixed { name: String, key: String, field: String },
    #[error(
        "ConfigMap {name}, key {key}: {field} is a directive of kubectl's patches; use null to take a field away"
    )]
    Directive { name: String, key: String, field: String },
}

impl Parameters {
    /// From a ConfigMap's data.
    pub(super) fn read(name: &str, data: &BTreeMap<String, String>) -> Result<Self, Unusable> {
        let mut parameters = Self::default();
        for (key, text) in data {
            let Some(place) = KEYS.iter().position(|it| it == key) else {
                return Err(Unusable::Key { name: name.to_owned(), key: key.clone() });
            };
            let change = mapping(text).map_err(|(line, message)| Unusable::Syntax {
                name: name.to_owned(),
                key: key.clone(),
                line,
                message,
            })?;
            let told = |path: &[&str]| path.iter().try_fold(&change, |value, key| value.get(key)).is_some();
            if let Some(path) = FIXED.into_iter().find(|path| told(path)) {
                return Err(Unusable::Fixed {
                    name: name.to_owned(),
                    key: key.clone(),
                    field: path.join("."),
                });
            }
            if let Some(field) = directive(&change) {
                return Err(Unusable::Directive { name: name.to_owned(), key: key.clone(), field });
            }
            parameters.0[place] = Some(change);
        }
        Ok(parameters)
    }

    /// The objects with the changes.
    pub(super) fn apply(&self, mut objects: [Value; 3]) -> [Value; 3] {
        for (object, change) in objects.iter_mut().zip(&self.0) {
            if let Some(change) = change {
                merge(object, change, "");
            }
        }
        objects
    }
}

/// One mapping in YAML; else the line and what is wrong.
fn mapping(text: &str) -> Result<Value, (u32, String)> {
    let mut documents = yaml::documents(text);
    match (documents.len(), documents.pop()) {
        (0, _) | (_, None) => Ok(json!({})),
        (1, Some(Ok(node))) if matches!(node.value, yaml::Value::Map(_)) => Ok(node.to_json()),
        (1, Some(Err(error))) => Err((error.at.line, error.message)),
        _ => Err((1, "it must be one mapping".to_owned())),
    }
}

/// The first `$patch` and the like.
fn directive(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .find_map(|(key, value)| if key.starts_with('$') { Some(key.clone()) } else { directive(value) }),
        Value::Array(items) => items.iter().find_map(directive),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Lays a change over a value; `field` is the name under which it stands.
fn merge(into: &mut Value, change: &Value, field: &str) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => merge_map(into, change),
        (Value::Array(into), Value::Array(change)) if merge_key(field, change).is_some() => {
            let key = merge_key(field, change).unwrap_or_default();
            for item in change {
                match into.iter_mut().find(|it| it[key] == item[key]) {
                    Some(known) => merge(known, item, ""),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn merge_map(into: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (key, value) in change {
        match (into.get_mut(key), value) {
            (_, Value::Null) => drop(into.shift_remove(key)),
            (Some(known), value) => merge(known, value, key),
            (None, value) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

fn merge_key(field: &str, items: &[Value]) -> Option<&'static str> {
    let (_, key) = MERGE_KEYS.iter().find(|(list, _)| *list == field)?;
    let keys = [*key, CONTAINER_PORT];
    keys.into_iter().find(|key| items.iter().all(|item| item.get(key).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<Parameters, Unusable> {
        let data = entries.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        Parameters::read("public", &data)
    }

    fn objects() -> [Value; 3] {
        let container = json!({"name": "istio-proxy", "image": "leno/proxy:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 15020}]});
        [
            json!({"kind": "ServiceAccount", "metadata": {"name": "public-leno"}}),
            json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [container], "volumes": [{"name": "state"}]}}}}),
            json!({"kind": "Service", "spec": {"type": "LoadBalancer", "ports": [{"name": "a", "port": 80}]}}),
        ]
    }

    #[test]
    fn changes_are_merged_into_what_has_the_same_name() {
        let parameters = read(&[
            (
                "deployment",
                "spec: {replicas: 3, template: {spec: {nodeSelector: {a: b}, containers: [{name: istio-proxy, resources: {requests: {cpu: 1}}, \
                 env: [{name: A, value: '2'}, {name: B, value: '3'}]}, {name: more}]}}}",
            ),
            ("service", "spec: {externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]}"),
            ("serviceAccount", "metadata: {annotations: {eks.amazonaws.com/role-arn: x}}"),
        ]);
        let [account, deployment, service] = parameters.unwrap().apply(objects());
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(deployment["spec"]["replicas"], 3);
        assert_eq!(pod["nodeSelector"], json!({"a": "b"}));
        assert_eq!(pod["containers"][0]["image"], "leno/proxy:1");
        assert_eq!(
            pod["containers"][0]["env"],
            json!([{"name": "A", "value": "2"}, {"name": "B", "value": "3"}])
        );
        assert_eq!(pod["containers"][0]["ports"], json!([{"containerPort": 15020}]));
        assert_eq!(pod["containers"][1], json!({"name": "more"}));
        assert_eq!(pod["volumes"], json!([{"name": "state"}]));
        assert_eq!(service["spec"]["ports"], json!([{"name": "a", "port": 80, "nodePort": 30080}]));
        assert_eq!(service["spec"]["type"], "LoadBalancer");
        assert_eq!(account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"], "x");
    }

    #[test]
    fn null_takes_a_field_away_and_other_lists_are_replaced() {
        let parameters = read(&[
            ("service", "spec: {type: null, loadBalancerSourceRanges: [10.0.0.0/8]}"),
            (
                "deployment",
                "spec: {template: {spec: {containers: [{name: istio-proxy, ports: [{containerPort: 15020, name: http}]}]}}}",
            ),
        ]);
        let [_, deployment, service] = parameters.unwrap().apply(objects());
        assert!(service["spec"].get("type").is_none());
        assert_eq!(service["spec"]["loadBalancerSourceRanges"], json!(["10.0.0.0/8"]));
        let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(*ports, json!([{"containerPort": 15020, "name": "http"}]));
    }

    #[test]
    fn what_cannot_be_used_says_where() {
        let told = |key: &str, text: &str| read(&[(key, text)]).unwrap_err().to_string();
        assert!(told("deploymnt", "").contains("key \"deploymnt\" is none of"));
        assert!(told("service", "spec: [").starts_with("ConfigMap public, key service, line "));
        assert!(told("service", "- a").ends_with("it must be one mapping"));
        assert!(told("deployment", "metadata: {name: mine}").contains("metadata.name is not for"));
        assert!(
            told("deployment", "spec: {template: {spec: {serviceAccountName: root}}}")
                .contains("serviceAccountName")
        );
        assert!(told("service", "spec: {$patch: replace}").contains("$patch is a directive"));
    }
}
