//! Waits until an object does what it is for.
//!
//! Invariant: a wait ends at its deadline, and then says how far the object is and what a pod of it complains of.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    install::{Deadline, Step},
    object::Named,
    problem::{Problem, chain},
};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Waits for what can be waited for: pods of a Deployment, an agent on each node, and the bundle that the control plane writes into its webhook.
pub(crate) async fn until_ready(
    client: &Client,
    named: &Named,
    deadline: &Deadline,
    tell: &mut impl FnMut(Step),
) -> Result<(), Problem> {
    let missing: fn(&Value) -> Option<String> = match named.kind.as_str() {
        "Deployment" => missing_pods,
        "DaemonSet" => missing_agents,
        "MutatingWebhookConfiguration" => missing_bundle,
        _ => return Ok(()),
    };
    let mut said = None;
    loop {
        // An API server that is away for a moment is waited for like a pod.
        let state = match named.api(client).get(&named.name).await {
            Ok(object) => {
                let object = json!(object);
                missing(&object).map(|state| (state, object))
            }
            Err(error @ kube::Error::Api(_)) => return Err(Problem::of(named, "get", &error)),
            Err(error) if Instant::now() >= deadline.end => {
                return Err(Problem::Unreachable { object: named.to_string(), why: chain(&error) });
            }
            Err(_) => {
                sleep(PERIOD).await;
                continue;
            }
        };
        let Some((mut state, object)) = state else {
            tell(Step::Ready(named.to_string()));
            return Ok(());
        };
        if let Some(complaint) = complaint(client, named, &object).await {
            state = format!("{state}; {complaint}");
        }
        if Instant::now() >= deadline.end {
            let (object, waited) = (named.to_string(), deadline.patience);
            return Err(Problem::Late { object, waited, state });
        }
        if said.as_ref() != Some(&state) {
            tell(Step::Waiting(named.to_string(), state.clone()));
            said = Some(state);
        }
        sleep(PERIOD).await;
    }
}

/// The condition of `kubectl rollout status`: every replica is of the present template and available, and no other is left.
fn missing_pods(deployment: &Value) -> Option<String> {
    let status = |key: &str| deployment["status"][key].as_i64().unwrap_or(0);
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let generation = deployment["metadata"]["generation"].as_i64().unwrap_or(0);
    let (updated, available) = (status("updatedReplicas"), status("availableReplicas"));
    let done = status("observedGeneration") >= generation
        && updated >= wanted
        && available >= wanted
        && status("replicas") <= updated;
    (!done).then(|| format!("{updated} of {wanted} pods are new, {available} available"))
}

/// The condition of `kubectl rollout status`: the present template is on every node that it is for, and available there.
fn missing_agents(daemon_set: &Value) -> Option<String> {
    let status = |key: &str| daemon_set["status"][key].as_i64().unwrap_or(0);
    let generation = daemon_set["metadata"]["generation"].as_i64().unwrap_or(0);
    let wanted = status("desiredNumberScheduled");
    let (updated, available) = (status("updatedNumberScheduled"), status("numberAvailable"));
    let done = status("observedGeneration") >= generation && updated >= wanted && available >= wanted;
    (!done).then(|| format!("{updated} of {wanted} pods are new, {available} available"))
}

fn missing_bundle(webhook: &Value) -> Option<String> {
    let hooks = webhook["webhooks"].as_array().into_iter().flatten();
    let empty = |hook: &&Value| hook["clientConfig"]["caBundle"].as_str().is_none_or(str::is_empty);
    let without = hooks.filter(empty).count();
    (without > 0).then(|| "the control plane has not filled in its certificate (caBundle) yet".to_owned())
}

/// What the first pod of a workload that is not ready complains of.
async fn complaint(client: &Client, named: &Named, workload: &Value) -> Option<String> {
    let labels = workload["spec"]["selector"]["matchLabels"].as_object()?;
    let selector: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), named.namespace.as_deref()?);
    let pods = pods.list(&ListParams::default().labels(&selector.join(",")).limit(20)).await.ok()?;
    pods.items.iter().find_map(pod_complaint)
}

pub(crate) fn pod_complaint(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    // In their order: the proxy and its capture are init containers, and what comes later waits for them.
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    if let Some(why) = containers.filter(|container| !container.ready).find_map(container_complaint) {
        return Some(format!("pod {name}: {why}"));
    }
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(format!("pod {name}: {}", unschedulable.message.as_deref().unwrap_or("Unschedulable")))
}

fn container_complaint(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        // The usual way of every pod.
        if matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let message = waiting.message.as_deref().map(|message| format!(": {message}"));
        return Some(format!("{reason}{}", message.unwrap_or_default()));
    }
    let ended = state.terminated.as_ref()?;
    Some(format!("{} ended with code {}", container.name, ended.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(observed: i64, replicas: i64, updated: i64, available: i64) -> Value {
        json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {"observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available},
        })
    }

    #[test]
    fn a_deployment_is_ready_when_all_its_pods_are_new_and_available() {
        assert_eq!(missing_pods(&deployment(2, 2, 2, 2)), None);
        assert!(missing_pods(&deployment(1, 2, 2, 2)).is_some(), "the status is of the generation before");
        assert!(missing_pods(&deployment(2, 3, 2, 2)).is_some(), "an old pod is left");
        assert_eq!(
            missing_pods(&deployment(2, 2, 2, 1)).as_deref(),
            Some("2 of 2 pods are new, 1 available")
        );
        assert!(missing_pods(&json!({"spec": {}})).is_some(), "no status yet");
    }

    #[test]
    fn a_daemon_set_is_ready_when_it_is_new_and_available_on_every_node() {
        let of = |observed: i64, updated: i64, available: i64| {
            json!({"metadata": {"generation": 2}, "status": {
                "observedGeneration": observed, "desiredNumberScheduled": 3,
                "updatedNumberScheduled": updated, "numberAvailable": available,
            }})
        };
        assert_eq!(missing_agents(&of(2, 3, 3)), None);
        assert!(missing_agents(&of(1, 3, 3)).is_some(), "the status is of the generation before");
        assert_eq!(missing_agents(&of(2, 3, 2)).as_deref(), Some("3 of 3 pods are new, 2 available"));
        assert!(missing_agents(&of(2, 1, 3)).is_some(), "old ones are left");
    }

    #[test]
    fn a_webhook_is_ready_when_every_hook_has_a_bundle() {
        let webhook = |second: &str| json!({"webhooks": [{"clientConfig": {"caBundle": "eA=="}}, {"clientConfig": {"caBundle": second}}]});
        assert_eq!(missing_bundle(&webhook("eA==")), None);
        assert!(missing_bundle(&webhook("")).is_some());
    }

    #[test]
    fn a_pod_complains_of_what_a_person_can_mend() {
        let pod = |state: Value| -> Pod {
            let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            serde_json::from_value(
                json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}}),
            )
            .unwrap()
        };
        let pull = pod(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
        assert_eq!(pod_complaint(&pull).as_deref(), Some("pod p: ImagePullBackOff: no such image"));
        assert_eq!(pod_complaint(&pod(json!({"waiting": {"reason": "ContainerCreating"}}))), None);
    }

    #[test]
    fn an_init_container_whose_image_is_not_there_is_what_a_pod_complains_of() {
        let container = |name: &str, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let pull = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
        let status = json!({
            "initContainerStatuses": [container("istio-proxy", pull)],
            "containerStatuses": [container("c", json!({"waiting": {"reason": "PodInitializing"}}))],
        });
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
        assert_eq!(pod_complaint(&pod).as_deref(), Some("pod p: ErrImagePull: no such image"));
    }
}
