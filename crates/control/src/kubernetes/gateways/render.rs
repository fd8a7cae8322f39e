//! The objects that run a Gateway: its ServiceAccount, Deployment and Service.
//!
//! Invariants: pure; all three are named `GATEWAY-CLASS`, which is the account that the compiler gives the gateway's identity
//! (Gateway API, "Automated Deployments"), and belong to the Gateway, with which they go.

use std::collections::BTreeMap;

use leno_apis::{
    Object, Rule,
    gateway::{Gateway, listeners::Listener},
};
use leno_inject::{InjectionConfig, contract::HEALTH_PORT, gateway_pod};
use serde_json::{Value, json};

/// Longest name of a Service, and value of a label.
const LONGEST: usize = 63;
/// Type of the Service; Istio's annotation, on the Gateway.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";

/// Why a Gateway is not run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRun {
    #[error("{name:?} is longer than {LONGEST} characters: no Service can have this name")]
    LongName { name: String },
    #[error("the annotation {SERVICE_TYPE} is {given:?}; it can be LoadBalancer, NodePort or ClusterIP")]
    ServiceType { given: String },
    #[error("none of its listeners can be served")]
    NoListener,
    #[error("the API server gave it no uid")]
    NoUid,
}

/// The name of everything that runs a Gateway.
pub(super) fn name(gateway: &Object<Gateway>) -> String {
    format!("{}-{}", gateway.name(), gateway.spec.class_name.as_str())
}

/// The objects, in the order in which they are to be applied.
pub(super) fn objects(config: &InjectionConfig, gateway: &Object<Gateway>) -> Result<[Value; 3], NotRun> {
    let made = Made::of(gateway)?;
    let account = made.object("v1", "ServiceAccount", json!({}));
    let deployment = made.object("apps/v1", "Deployment", json!({"spec": made.deployment(config)}));
    let service = made.object("v1", "Service", json!({"spec": made.service()?}));
    Ok([account, deployment, service])
}

struct Made<'g> {
    gateway: &'g Object<Gateway>,
    name: String,
    uid: &'g str,
}

impl<'g> Made<'g> {
    fn of(gateway: &'g Object<Gateway>) -> Result<Self, NotRun> {
        let name = name(gateway);
        if name.len() > LONGEST {
            return Err(NotRun::LongName { name });
        }
        let uid = gateway.metadata.uid.as_deref().ok_or(NotRun::NoUid)?;
        Ok(Self { gateway, name, uid })
    }

    fn object(&self, version: &str, kind: &str, fields: Value) -> Value {
        let mut object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {
                "name": self.name, "namespace": self.gateway.namespace(), "labels": self.labels(),
                "ownerReferences": [{
                    "apiVersion": self.gateway.api_version, "kind": "Gateway", "name": self.gateway.name(), "uid": self.uid,
                    "controller": true,
                }],
            },
        });
        let annotations = &self.gateway.spec.infrastructure.annotations;
        if !annotations.is_empty() {
            object["metadata"]["annotations"] = json!(annotations);
        }
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        object
    }

    /// The user's first: ours win, because pods are found by them.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.gateway.spec.infrastructure.labels.clone();
        labels.extend(self.selector());
        let class = self.gateway.spec.class_name.as_str();
        labels.insert(GATEWAY_CLASS.to_owned(), class.to_owned());
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "leno-control".to_owned());
        labels
    }

    fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(GATEWAY_NAME.to_owned(), self.gateway.name().to_owned())])
    }

    /// Without `replicas`: whoever scales it, by hand or by an autoscaler, owns that field.
    fn deployment(&self, config: &InjectionConfig) -> Value {
        let mut labels = self.labels();
        for key in ["leno.dev/inject", "sidecar.istio.io/inject"] {
            let no = if key == "leno.dev/inject" { "disabled" } else { "false" };
            labels.insert(key.to_owned(), no.to_owned());
        }
        labels.insert("service.istio.io/canonical-name".to_owned(), self.name.clone());
        labels.insert("service.istio.io/canonical-revision".to_owned(), "latest".to_owned());
        let mut annotations = self.gateway.spec.infrastructure.annotations.clone();
        annotations.insert("prometheus.io/scrape".to_owned(), "true".to_owned());
        annotations.insert("prometheus.io/port".to_owned(), "15020".to_owned());
        annotations.insert("prometheus.io/path".to_owned(), "/stats/prometheus".to_owned());
        let id = format!("{}/{}", self.gateway.namespace(), self.gateway.name());
        json!({
            "selector": {"matchLabels": self.selector()},
            // No replica leaves before another serves.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": gateway_pod(config, &id, &self.name),
            },
        })
    }

    fn service(&self) -> Result<Value, NotRun> {
        let listeners = self.gateway.spec.listeners.iter().filter_map(Rule::ok);
        let mut ports: BTreeMap<u16, &Listener> = BTreeMap::new();
        for listener in listeners {
            ports.entry(*listener.port).or_insert(listener);
        }
        if ports.is_empty() {
            return Err(NotRun::NoListener);
        }
        let mut all = vec![port("status-port", HEALTH_PORT)];
        let given = ports.iter().filter(|(number, _)| **number != HEALTH_PORT);
        // A listener's name may be too long for a port's.
        all.extend(given.map(|(number, _)| port(&format!("port-{number}"), *number)));
        Ok(json!({"type": self.service_type()?, "selector": self.selector(), "ports": all}))
    }

    fn service_type(&self) -> Result<&'g str, NotRun> {
        let gateway = self.gateway;
        let annotations = [&gateway.metadata.annotations, &gateway.spec.infrastructure.annotations];
        let given = annotations.into_iter().find_map(|annotations| annotations.get(SERVICE_TYPE));
        match given.map(String::as_str) {
            None => Ok("LoadBalancer"),
            Some(given @ ("LoadBalancer" | "NodePort" | "ClusterIP")) => Ok(given),
            Some(given) => Err(NotRun::ServiceType { given: given.to_owned() }),
        }
    }
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leno_apis::AnyObject;

    use super::*;

    fn gateway(change: impl FnOnce(&mut Value)) -> Arc<AnyObject> {
        let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
        let mut given = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "public", "namespace": "edge", "uid": "u-1"},
            "spec": {"gatewayClassName": "leno", "listeners": [listener("a", 80), listener("b", 8080), {"name": "c", "port": 80, "protocol": "HTTP", "hostname": "c.example"}]},
        });
        change(&mut given);
        leno_apis::parse_json("", &given).objects.remove(0)
    }

    fn rendered(change: impl FnOnce(&mut Value)) -> Result<[Value; 3], NotRun> {
        let any = gateway(change);
        let AnyObject::Gateway(gateway) = &*any else { panic!("no Gateway") };
        objects(&InjectionConfig::default(), gateway)
    }

    #[test]
    fn all_three_have_the_name_of_the_identity_and_belong_to_the_gateway() {
        let objects = rendered(|_| {}).unwrap();
        assert_eq!(
            objects.each_ref().map(|it| it["kind"].as_str().unwrap()),
            ["ServiceAccount", "Deployment", "Service"]
        );
        for object in &objects {
            assert_eq!(object["metadata"]["name"], "public-leno");
            assert_eq!(object["metadata"]["namespace"], "edge");
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u-1");
            assert_eq!(object["metadata"]["labels"][GATEWAY_NAME], "public");
        }
        let template = &objects[1]["spec"]["template"];
        assert_eq!(template["spec"]["serviceAccountName"], "public-leno");
        assert_eq!(template["metadata"]["labels"][GATEWAY_NAME], "public");
        assert_eq!(template["metadata"]["labels"]["leno.dev/inject"], "disabled", "a proxy needs no proxy");
        assert!(objects[1]["spec"].get("replicas").is_none(), "an autoscaler may own it");
    }

    #[test]
    fn the_service_has_each_port_of_the_listeners_once() {
        let service = &rendered(|_| {}).unwrap()[2]["spec"];
        assert_eq!(service["type"], "LoadBalancer");
        let ports: Vec<u64> =
            service["ports"].as_array().unwrap().iter().map(|it| it["port"].as_u64().unwrap()).collect();
        assert_eq!(ports, [15021, 80, 8080]);
        assert_eq!(service["selector"], json!({GATEWAY_NAME: "public"}));
    }

    #[test]
    fn labels_and_annotations_of_the_infrastructure_are_on_all_and_ours_win() {
        let objects = rendered(|gateway| {
            gateway["spec"]["infrastructure"] = json!({
                "labels": {"team": "edge", GATEWAY_NAME: "another"}, "annotations": {"aws": "nlb"},
            });
        });
        for object in &objects.unwrap() {
            assert_eq!(object["metadata"]["labels"]["team"], "edge");
            assert_eq!(object["metadata"]["labels"][GATEWAY_NAME], "public");
            assert_eq!(object["metadata"]["annotations"]["aws"], "nlb");
        }
    }

    #[test]
    fn the_services_type_is_chosen_by_annotation_and_a_wrong_one_is_refused() {
        let typed = |given: &str| {
            rendered(|gateway| gateway["metadata"]["annotations"] = json!({SERVICE_TYPE: given}))
        };
        assert_eq!(typed("ClusterIP").unwrap()[2]["spec"]["type"], "ClusterIP");
        assert!(matches!(typed("ExternalName"), Err(NotRun::ServiceType { .. })));
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        assert_eq!(rendered(|it| it["spec"]["listeners"] = json!([])), Err(NotRun::NoListener));
        let long = "g".repeat(60);
        assert!(matches!(rendered(|it| it["metadata"]["name"] = json!(long)), Err(NotRun::LongName { .. })));
    }
}
