//! Installing: order, waiting, and what is said when the API server refuses.

use std::time::Duration;

use http::Method;
use leno_cluster::{Installation, Problem, Step, install};
use leno_install::{Values, objects};
use serde_json::Value;

use crate::fake::{Fake, State};

const HOW: Installation = Installation { wait: Some(Duration::from_secs(60)), force: false };

async fn installed(fake: &Fake, how: Installation) -> (Result<(), Problem>, Vec<Step>) {
    let mut steps = Vec::new();
    let result =
        install(&fake.client().await, &objects(&Values::default()), how, |step| steps.push(step)).await;
    (result, steps)
}

fn applied(steps: &[Step]) -> Vec<&str> {
    steps
        .iter()
        .filter_map(|step| if let Step::Applied(name) = step { Some(name.as_str()) } else { None })
        .collect()
}

#[tokio::test]
async fn every_object_is_applied_in_order_as_it_is_printed() {
    let fake = Fake::start(State::default()).await;
    let (result, steps) = installed(&fake, HOW).await;
    result.unwrap();
    let all = objects(&Values::default());
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().map(|it| format!("{it}/")).unwrap_or_default();
        format!("{} {namespace}{}", object["kind"].as_str().unwrap(), metadata["name"].as_str().unwrap())
    };
    assert_eq!(applied(&steps), all.iter().map(name).collect::<Vec<_>>());
    assert!(steps.contains(&Step::Ready("Deployment leno-system/leno-control".to_owned())));
    let state = fake.state.lock().unwrap();
    assert_eq!(state.objects.len(), all.len());
    let config = &state.objects["/api/v1/namespaces/leno-system/configmaps/leno-config"];
    let ours = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    assert_eq!(config["data"], ours["data"]);
    assert!(
        state.asked.iter().all(|asked| !asked.contains("force=true")),
        "others' fields are not taken over"
    );
}

#[tokio::test]
async fn what_is_forbidden_is_named_with_verb_and_resource_and_nothing_comes_after_it() {
    let said =
        "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: User \"eve\" cannot patch resource";
    let refuses = vec![(Method::PATCH, "/apis/rbac.authorization.k8s.io/v1/clusterroles/", 403, said)];
    let fake = Fake::start(State { refuses, ..State::default() }).await;
    let (result, steps) = installed(&fake, HOW).await;
    let error = result.unwrap_err().to_string();
    let begins =
        "ClusterRole leno-control-leno-system: forbidden to patch clusterroles.rbac.authorization.k8s.io: ";
    assert!(error.starts_with(begins) && error.contains("eve"), "{error}");
    assert_eq!(applied(&steps), ["Namespace leno-system", "ServiceAccount leno-system/leno-control"]);
    assert_eq!(fake.paths().len(), 2);
}

#[tokio::test]
async fn pods_that_do_not_come_end_the_wait_before_the_webhook() {
    let fake = Fake::start(State { stuck: true, ..State::default() }).await;
    let pod = serde_json::json!({
        "metadata": {"name": "leno-control-0", "labels": {"app": "leno-control", "app.kubernetes.io/instance": "default"}},
        "status": {"containerStatuses": [{
            "name": "leno-control", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}},
        }]},
    });
    let path = "/api/v1/namespaces/leno-system/pods/leno-control-0".to_owned();
    fake.state.lock().unwrap().objects.insert(path, pod);
    let (result, steps) =
        installed(&fake, Installation { wait: Some(Duration::from_secs(1)), force: false }).await;
    let error = result.unwrap_err();
    assert!(matches!(error, Problem::Late { .. }), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("0 available") && error.contains("pod leno-control-0: ImagePullBackOff"),
        "{error}"
    );
    assert!(steps.iter().any(|step| matches!(step, Step::Waiting(..))), "progress is told");
    assert!(!fake.paths().iter().any(|path| path.contains("mutatingwebhook")), "no pod waits for a webhook");
}

#[tokio::test]
async fn without_waiting_all_is_applied_at_once() {
    let fake = Fake::start(State { stuck: true, ..State::default() }).await;
    let (result, steps) = installed(&fake, Installation { wait: None, force: true }).await;
    result.unwrap();
    assert_eq!(applied(&steps).len(), objects(&Values::default()).len());
    assert!(fake.asked().iter().all(|asked| asked.contains("force=true")));
}

#[tokio::test]
async fn a_cluster_without_the_gateway_api_gets_all_but_the_class_and_it_is_said() {
    let refuses = vec![(
        Method::PATCH,
        "/apis/gateway.networking.k8s.io/",
        404,
        "the server could not find the requested resource",
    )];
    let fake = Fake::start(State { refuses, ..State::default() }).await;
    let (result, steps) = installed(&fake, HOW).await;
    result.unwrap();
    assert!(steps.iter().any(
        |step| matches!(step, Step::Skipped(name, why) if name == "GatewayClass leno" && why.contains("CRDs"))
    ));
    assert!(
        fake.paths().iter().any(|path| path.contains("mutatingwebhook")),
        "what comes after it is applied"
    );
}

#[tokio::test]
async fn fields_of_another_manager_are_a_conflict_that_says_how_to_take_them_over() {
    let refuses = vec![(Method::PATCH, "/apis/apps/v1/", 409, "conflict with \"helm\": .spec.replicas")];
    let fake = Fake::start(State { refuses, ..State::default() }).await;
    let error = installed(&fake, HOW).await.0.unwrap_err().to_string();
    assert!(error.contains("helm") && error.contains("--force-conflicts"), "{error}");
}

#[tokio::test]
async fn an_api_server_that_is_not_there_is_told_apart() {
    let fake = Fake::start(State::default()).await;
    let access = fake.access();
    let text = std::fs::read_to_string(access.kubeconfig.as_ref().unwrap()).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = text.replace(&fake.address.to_string(), &closed.to_string());
    std::fs::write(access.kubeconfig.as_ref().unwrap(), text).unwrap();
    let (result, steps) = installed(&fake, HOW).await;
    assert!(result.unwrap_err().is_unreachable());
    assert_eq!(steps, []);
}
