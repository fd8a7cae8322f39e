//! The webhook's questions and answers, and the patches in them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use leno_inject::{InjectionConfig, diff, review};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{enrolled, injected, namespace, pod};

fn question(object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u-1", "operation": "CREATE", "namespace": "shop", "object": object, "dryRun": false,
            "resource": {"group": "", "version": "v1", "resource": "pods"}},
    })
}

fn answer(question: &Value) -> Value {
    let answer = review(&InjectionConfig::default(), &enrolled(), question);
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    answer["response"].clone()
}

fn patch(response: &Value) -> Value {
    serde_json::from_slice(&STANDARD.decode(response["patch"].as_str().unwrap()).unwrap()).unwrap()
}

pub(crate) fn patched(pod: &Value, patch: &Value) -> Value {
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(patch.clone()).unwrap())
        .unwrap();
    pod
}

/// The pod as the API server has it after the webhook.
pub(crate) fn through_the_webhook(pod: &Value) -> Value {
    patched(pod, &patch(&answer(&question(pod))))
}

#[test]
fn a_pod_is_patched_to_what_injection_makes_of_it() {
    let pod = pod("", &[("sidecar.istio.io/extraStatTags", "a")]);
    let response = answer(&question(&pod));
    assert_eq!(response["uid"], "u-1");
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    assert_eq!(response["warnings"].as_array().unwrap().len(), 1);
    let expected = injected(&pod).pod;
    assert_eq!(patched(&pod, &patch(&response)).to_string(), expected.to_string());
}

#[test]
fn a_dry_run_is_answered_as_any_other() {
    let mut dry = question(&pod("", &[]));
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(answer(&dry), answer(&question(&pod("", &[]))));
}

#[test]
fn a_patch_touches_nothing_but_what_changes() {
    let mut pod = pod("", &[]);
    pod["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 1}});
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "a"}]);
    let patch = diff(&pod, &injected(&pod).pod);
    let paths: Vec<_> = patch.iter().map(|operation| operation["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"/spec/containers/0/livenessProbe"), "{paths:?}");
    assert!(paths.contains(&"/spec/initContainers/0"), "{paths:?}");
    assert!(paths.contains(&"/metadata/annotations/sidecar.istio.io~1status"), "{paths:?}");
    assert!(!paths.iter().any(|path| path.starts_with("/spec/initContainers/2")), "{paths:?}");
}

#[test]
fn pods_that_are_left_are_allowed_as_they_are_with_the_reason_for_the_audit() {
    let response =
        review(&InjectionConfig::default(), &namespace(""), &question(&pod("", &[])))["response"].clone();
    assert_eq!(response["allowed"], true);
    assert!(response.get("patch").is_none());
    assert!(response["auditAnnotations"]["reason"].as_str().unwrap().contains("neither"));
    let mut update = question(&pod("", &[]));
    update["request"]["operation"] = json!("UPDATE");
    assert_eq!(answer(&update), json!({"uid": "u-1", "allowed": true}));
    let injected = injected(&pod("", &[])).pod;
    assert!(answer(&question(&injected)).get("patch").is_none());
}

#[test]
fn a_pod_that_asks_for_what_is_not_honoured_is_refused_with_every_reason() {
    let annotations =
        [("sidecar.istio.io/interceptionMode", "TPROXY"), ("proxy.istio.io/config", "meshId: a")];
    let response = answer(&question(&pod("", &annotations)));
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("interceptionMode") && message.contains("meshId"), "{message}");
    assert!(response.get("patch").is_none());
}

#[test]
fn what_is_no_review_of_a_pod_is_refused_and_never_panics() {
    let bad = |review: Value, uid: &str| {
        let response = answer(&review);
        assert_eq!(
            (&response["allowed"], &response["status"]["code"]),
            (&json!(false), &json!(400)),
            "{review}"
        );
        assert_eq!(response["uid"], uid);
    };
    bad(json!(null), "");
    bad(
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "a"}}),
        "a",
    );
    bad(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}), "");
    bad(question(&json!({"kind": "Deployment", "spec": {}})), "u-1");
    bad(question(&json!({"kind": "Pod"})), "u-1");
}

#[test]
fn warnings_are_few_and_short() {
    let many: Vec<_> =
        (0..40).map(|index| (format!("sidecar.istio.io/unknown-{index}{}", "x".repeat(300)), "a")).collect();
    let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let response = answer(&question(&pod("", &many)));
    let warnings = response["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 16);
    assert!(warnings.iter().all(|warning| warning.as_str().unwrap().chars().count() <= 250));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        "[a-c/~]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(vec!["name", "a", "b/c", "d~e"]), inner), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_patch_leads_from_any_value_to_any_other(before in json(), after in json()) {
        prop_assert_eq!(patched(&before, &Value::Array(diff(&before, &after))), after);
    }

    #[test]
    fn any_object_is_answered(object in json(), spec in json()) {
        let object = json!({"kind": "Pod", "metadata": object, "spec": spec});
        let response = answer(&question(&object));
        prop_assert_eq!(&response["uid"], "u-1");
    }
}
