//! What a check says of clusters that are fit, unfit and empty.

use leno_cluster::check::{Finding, Level, When, check};
use leno_install::Values;
use serde_json::{Value, json};

use crate::fake::{Fake, State};

/// What reviews say when everything is allowed, and what a webhook makes of a pod.
fn willing(path: &str, body: &Value) -> Value {
    let mut body = body.clone();
    if path.contains("accessreviews") {
        body["status"] = json!({"allowed": true});
    } else {
        body["metadata"]["annotations"] = json!({"sidecar.istio.io/status": "{}"});
        body["spec"]["initContainers"] = json!([{"name": "istio-proxy"}]);
    }
    body
}

/// The same for one who may not make cluster roles, where no webhook answers.
fn unwilling(path: &str, body: &Value) -> Value {
    let mut body = body.clone();
    if path.contains("accessreviews") {
        body["status"] = json!({"allowed": body["spec"]["resourceAttributes"]["resource"] != "clusterroles"});
    }
    body
}

async fn cluster(reviews: fn(&str, &Value) -> Value, minor: &str) -> Fake {
    let fake = Fake::start(State { reviews: Some(reviews), ..State::default() }).await;
    let version = json!({
        "major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.0"), "buildDate": "", "compiler": "", "gitCommit": "",
        "gitTreeState": "", "goVersion": "", "platform": "",
    });
    let mut state = fake.state.lock().unwrap();
    state.objects.insert("/version".to_owned(), version);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    state.objects.insert("/api/v1/namespaces/default".to_owned(), namespace);
    drop(state);
    fake
}

async fn found(fake: &Fake, when: When) -> Vec<Finding> {
    found_with(fake, when, &Values::default()).await
}

async fn found_with(fake: &Fake, when: When, values: &Values) -> Vec<Finding> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    check(&fake.client().await, values, when, i64::try_from(now).unwrap()).await.unwrap()
}

fn about<'f>(findings: &'f [Finding], about: &str) -> &'f Finding {
    findings.iter().find(|finding| finding.about == about).unwrap()
}

#[tokio::test]
async fn a_cluster_that_is_fit_has_no_failing_line_before_an_installation() {
    let fake = cluster(willing, "34").await;
    let findings = found(&fake, When::Before).await;
    assert!(findings.iter().all(|finding| finding.level != Level::Fail), "{findings:?}");
    assert_eq!(about(&findings, "gateway-api").level, Level::Warn);
    assert_eq!(about(&findings, "user-rights").level, Level::Ok);
    assert_eq!(about(&findings, "clock").level, Level::Ok);
}

#[tokio::test]
async fn rights_that_are_lacking_are_named_and_an_old_server_fails() {
    let fake = cluster(unwilling, "28").await;
    let findings = found(&fake, When::Before).await;
    let rights = about(&findings, "user-rights");
    assert_eq!(rights.level, Level::Fail);
    assert!(rights.text.contains("create clusterroles.rbac.authorization.k8s.io"), "{rights}");
    assert_eq!(about(&findings, "version").level, Level::Fail);
}

#[tokio::test]
async fn what_was_never_installed_fails_line_by_line_with_what_to_do() {
    let fake = cluster(willing, "34").await;
    let findings = found(&fake, When::After).await;
    assert_eq!(about(&findings, "authority").level, Level::Fail);
    for missing in ["control-plane", "webhook"] {
        let finding = about(&findings, missing);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.to_string().contains("leno install"), "{finding}");
    }
    assert!(findings.iter().all(|finding| finding.level == Level::Ok || finding.advice.is_some()));
}

#[tokio::test]
async fn a_pod_is_tried_without_being_made() {
    let fake = cluster(willing, "34").await;
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "leno-sidecar-injector-leno-system"}, "webhooks": [],
    });
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/leno-sidecar-injector-leno-system";
    fake.state.lock().unwrap().objects.insert(path.to_owned(), hook);
    assert_eq!(about(&found(&fake, When::After).await, "injection").level, Level::Ok);
    let pods: Vec<String> = fake
        .asked()
        .into_iter()
        .filter(|it| it.starts_with("POST /api/v1/namespaces/default/pods"))
        .collect();
    assert!(pods.len() == 1 && pods[0].contains("dryRun=All"), "{pods:?}");
    fake.state.lock().unwrap().reviews = Some(unwilling);
    let findings = found(&fake, When::After).await;
    assert_eq!(about(&findings, "injection").level, Level::Fail, "the pod came back without a proxy");
}

#[tokio::test]
async fn a_way_in_for_other_clusters_needs_an_address() {
    let fake = cluster(willing, "34").await;
    let mut values = Values::default();
    values.discovery.expose = true;
    let level = async || {
        let findings = found_with(&fake, When::After, &values).await;
        about(&findings, "peers-address").level
    };
    assert_eq!(level().await, Level::Fail, "it is not there");
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "leno-control-peers"}, "spec": {}});
    let path = "/api/v1/namespaces/leno-system/services/leno-control-peers";
    fake.state.lock().unwrap().objects.insert(path.to_owned(), service.clone());
    assert_eq!(level().await, Level::Fail, "the cloud has given it none");
    service["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}});
    fake.state.lock().unwrap().objects.insert(path.to_owned(), service);
    assert_eq!(level().await, Level::Ok);
}
