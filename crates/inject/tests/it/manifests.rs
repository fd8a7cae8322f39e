//! Pod templates in manifests get what the webhook gives to their pods.

use leno_inject::{InjectionConfig, WorkloadOutcome, inject_workload, workload_of};
use serde_json::{Value, json};

use crate::{admission::through_the_webhook, enrolled, namespace};

fn template() -> Value {
    json!({
        "metadata": {"labels": {"tier": "web"}, "annotations": {"traffic.sidecar.istio.io/excludeOutboundPorts": "5432"}},
        "spec": {"containers": [{"name": "app", "image": "a", "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ok", "port": "http"}}}]},
    })
}

fn workload(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "shop-web"}, "spec": spec})
}

fn inject(object: &mut Value) -> WorkloadOutcome {
    inject_workload(&InjectionConfig::default(), &enrolled(), object).unwrap()
}

/// The pod that a controller makes of a template.
fn pod_of(template: &Value, labels: &[(&str, &str)], owner: (&str, &str)) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
    pod.as_object_mut().unwrap().extend(template.as_object().unwrap().clone());
    for (key, value) in labels {
        pod["metadata"]["labels"][key] = json!(value);
    }
    pod["metadata"]["ownerReferences"] = json!([{"kind": owner.0, "name": owner.1, "controller": true}]);
    pod
}

#[test]
fn a_template_and_its_pod_get_the_same_byte_for_byte() {
    let hash = [("pod-template-hash", "5d4f8")];
    for (kind, pointer, labels, owner) in [
        ("Deployment", "/spec/template", &hash[..], ("ReplicaSet", "shop-web-5d4f8")),
        ("StatefulSet", "/spec/template", &[], ("StatefulSet", "shop-web")),
        ("DaemonSet", "/spec/template", &[], ("DaemonSet", "shop-web")),
        ("ReplicaSet", "/spec/template", &[], ("ReplicaSet", "shop-web")),
        ("Job", "/spec/template", &[], ("Job", "shop-web")),
        ("CronJob", "/spec/jobTemplate/spec/template", &[], ("Job", "shop-web-29012345")),
    ] {
        let spec = match kind {
            "CronJob" => json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template()}}}),
            _ => json!({"template": template()}),
        };
        let mut object = workload(kind, spec);
        assert!(matches!(inject(&mut object), WorkloadOutcome::Injected(..)), "{kind}");
        let offline = object.pointer(pointer).unwrap();
        let online = through_the_webhook(&pod_of(&template(), labels, owner));
        assert_eq!(online["spec"].to_string(), offline["spec"].to_string(), "{kind}");
        assert_eq!(
            online["metadata"]["annotations"].to_string(),
            offline["metadata"]["annotations"].to_string(),
            "{kind}"
        );
        let mut added = online["metadata"]["labels"].clone();
        added.as_object_mut().unwrap().shift_remove("pod-template-hash");
        assert_eq!(added.to_string(), offline["metadata"]["labels"].to_string(), "{kind}");
        assert_eq!(added["service.istio.io/canonical-name"], "shop-web", "{kind}");
    }
}

#[test]
fn a_pod_of_a_manifest_is_the_pod_of_the_webhook_byte_for_byte() {
    let mut pod = pod_of(&template(), &[], ("StatefulSet", "shop-web"));
    let online = through_the_webhook(&pod);
    inject(&mut pod);
    assert_eq!(online.to_string(), pod.to_string());
}

#[test]
fn objects_without_pods_and_pods_that_are_left_stay_as_they_are() {
    let mut service = json!({"kind": "Service", "spec": {"selector": {}}});
    let before = service.clone();
    assert_eq!(inject(&mut service), WorkloadOutcome::NoPods);
    assert_eq!(service, before);
    let mut deployment = workload("Deployment", json!({"template": template()}));
    let before = deployment.clone();
    let left = inject_workload(&InjectionConfig::default(), &namespace(""), &mut deployment).unwrap();
    assert!(matches!(left, WorkloadOutcome::Left(_)));
    assert_eq!(deployment, before);
}

#[test]
fn injecting_a_manifest_again_changes_nothing() {
    let mut object = workload("Deployment", json!({"template": template()}));
    inject(&mut object);
    let once = object.clone();
    assert!(matches!(inject(&mut object), WorkloadOutcome::Left(_)));
    assert_eq!(object, once);
}

#[test]
fn a_pod_is_of_the_workload_that_its_owners_name_leads_to() {
    let of = |kind: &str, name: &str, labels: Value| {
        workload_of(
            &json!({"metadata": {"labels": labels, "ownerReferences": [{"kind": kind, "name": name, "controller": true}]}}),
        )
    };
    assert_eq!(of("ReplicaSet", "web-7f9c", json!({"pod-template-hash": "7f9c"})), "web");
    assert_eq!(of("ReplicaSet", "web-7f9c", json!({"rollouts-pod-template-hash": "7f9c"})), "web");
    assert_eq!(of("ReplicaSet", "web-7f9c", json!({})), "web-7f9c");
    assert_eq!(of("Job", "nightly-29012345", json!({})), "nightly");
    assert_eq!(of("Job", "nightly-2", json!({})), "nightly-2");
    assert_eq!(of("StatefulSet", "db", json!({})), "db");
    assert_eq!(workload_of(&json!({"metadata": {"generateName": "adhoc-"}})), "adhoc");
    assert_eq!(workload_of(&json!({"kind": "Job", "metadata": {"name": "nightly-29012345"}})), "nightly");
    assert_eq!(workload_of(&json!({})), "");
}
