//! Pods that should have a proxy.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Pod};
use kube::{Api, api::ListParams};
use leno_inject::{
    Decision, InjectionConfig, Reason,
    contract::{CAPTURE_ANNOTATION, CAPTURE_CONTAINER, PROXY_CONTAINER, REVISION},
    decide, enrols, is_injected,
};
use serde_json::json;

use super::{Finding, Look, agents};
use crate::wait::pod_complaint;

/// Pods of one answer, and answers at most: 50,000 pods.
const PAGE: u32 = 500;
const PAGES: usize = 100;
/// Pods that are named one by one.
const NAMED: usize = 20;
/// Pods that may not answer before no other is asked: the API server does not reach pods here.
const SILENT: usize = 3;

/// Pods of the mesh: without a proxy though they should have one, or with one that is not ready.
pub(super) async fn of_the_mesh(look: &Look<'_>) -> Vec<Finding> {
    let namespaces: Api<Namespace> = Api::all(look.client.clone());
    let namespaces = match namespaces.list(&ListParams::default()).await {
        Ok(found) => found.items,
        Err(error) => return vec![Finding::unseen("pods", "namespaces", &error)],
    };
    let of = |namespace: &Namespace| leno_inject::Namespace::of(&json!(namespace));
    let namespaces: BTreeMap<String, leno_inject::Namespace> =
        namespaces.iter().map(of).map(|namespace| (namespace.name.clone(), namespace)).collect();
    let mut mesh = Mesh::new(look.values.injection());
    let pods: Api<Pod> = Api::all(look.client.clone());
    let mut next = ListParams::default().limit(PAGE);
    for _ in 0..PAGES {
        let page = match pods.list(&next).await {
            Ok(page) => page,
            Err(error) => return vec![Finding::unseen("pods", "pods", &error)],
        };
        for pod in &page.items {
            if let Some(namespace) = pod.metadata.namespace.as_ref().and_then(|it| namespaces.get(it)) {
                mesh.take(namespace, pod);
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => next = next.continue_token(&token),
            None => break,
        }
    }
    let mut silent = 0;
    for unready in std::mem::take(&mut mesh.unready).iter().take(NAMED) {
        match agents::is_uncaptured(look.client, &unready.namespace, &unready.name).await {
            Some(true) => mesh.is_uncaptured(unready),
            Some(false) => {}
            None => silent += 1,
        }
        if silent == SILENT {
            break;
        }
    }
    mesh.findings()
}

/// What is known of the pods so far.
struct Mesh {
    config: InjectionConfig,
    ready: usize,
    opted_out: usize,
    problems: Vec<Finding>,
    unready: Vec<Unready>,
}

/// A pod whose proxy runs, is not ready, and can be asked why.
struct Unready {
    /// Place of the problem.
    at: usize,
    namespace: String,
    name: String,
    /// Whether a CNI plugin captures its traffic.
    by_plugin: bool,
}

impl Mesh {
    fn new(config: InjectionConfig) -> Self {
        Self { config, ready: 0, opted_out: 0, problems: Vec::new(), unready: Vec::new() }
    }

    fn take(&mut self, namespace: &leno_inject::Namespace, pod: &Pod) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let name = format!("{}/{}", namespace.name, pod.metadata.name.as_deref().unwrap_or_default());
        let value = json!(pod);
        // Our injector writes it; what another mesh injected has none.
        let annotated = value["metadata"]["annotations"][REVISION].as_str();
        if let Some(revision) = annotated.filter(|_| is_injected(&value)) {
            let revision = value["metadata"]["labels"][REVISION].as_str().unwrap_or(revision);
            if self.config.serves(revision) {
                self.proxy(&name, pod);
            }
            return;
        }
        let enrolled = enrols(&self.config, namespace);
        match decide(&self.config, namespace, &value) {
            Decision::Leave(Reason::HasOtherProxy) if enrolled => self.problems.push(Finding::warn(
                "pods",
                format!("pod {name} has the proxy of another mesh, and its namespace is enrolled with Leno"),
                "take the other mesh's label off the namespace and restart its workload; until then it is called in plaintext",
            )),
            Decision::Inject(reason) => self.problems.push(Finding::warn(
                "pods",
                format!("pod {name} runs without a proxy, and should have one: {reason}"),
                "it is older than the label or the webhook: restart its workload (kubectl rollout restart)",
            )),
            Decision::Leave(reason) if is_noteworthy(&reason, enrolled) => {
                self.opted_out += 1;
                if !matches!(reason, Reason::PodSaysNo(_) | Reason::NeverSelected | Reason::PolicyDisabled) {
                    self.problems.push(Finding::warn(
                        "pods",
                        format!("pod {name} has no proxy: {reason}"),
                        "its traffic is not in the mesh; STRICT servers refuse it",
                    ));
                }
            }
            Decision::Leave(_) => {}
        }
    }

    fn proxy(&mut self, name: &str, pod: &Pod) {
        let status = pod.status.as_ref();
        let init = status.and_then(|status| status.init_container_statuses.as_ref());
        let container = |of: &str| init.into_iter().flatten().find(|status| status.name == of);
        if container(PROXY_CONTAINER).is_some_and(|status| status.ready) {
            self.ready += 1;
            return;
        }
        let capture = container(CAPTURE_CONTAINER).and_then(|status| {
            let state = status.state.as_ref()?.terminated.as_ref().or(status
                .last_state
                .as_ref()?
                .terminated
                .as_ref())?;
            (state.exit_code != 0).then(|| {
                format!("capture failed with code {} (container {CAPTURE_CONTAINER})", state.exit_code)
            })
        });
        let why =
            capture.or_else(|| pod_complaint(pod)).unwrap_or_else(|| "its proxy is not ready".to_owned());
        let at = name.replacen('/', " ", 1);
        let by_plugin = container(CAPTURE_CONTAINER).is_none()
            && pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CAPTURE_ANNOTATION));
        let runs = |status: &ContainerStatus| status.state.as_ref().is_some_and(|it| it.running.is_some());
        let proxy_runs = container(PROXY_CONTAINER).is_some_and(runs);
        if proxy_runs && let Some((namespace, pod)) = name.split_once('/') {
            let (namespace, name) = (namespace.to_owned(), pod.to_owned());
            self.unready.push(Unready { at: self.problems.len(), namespace, name, by_plugin });
        }
        let advice = if by_plugin && !proxy_runs {
            // The plugin's reason is in the events: there is no container yet that could have logged it.
            format!("kubectl describe pod -n {at}")
        } else {
            let of_capture = why.contains(CAPTURE_CONTAINER);
            let container = if of_capture { CAPTURE_CONTAINER } else { PROXY_CONTAINER };
            format!("kubectl logs -n {at} -c {container}")
        };
        self.problems.push(Finding::fail(
            "capture",
            format!("pod {name} has no working proxy: {why}"),
            advice,
        ));
    }

    /// A proxy says so itself.
    fn is_uncaptured(&mut self, unready: &Unready) {
        let Unready { at, namespace, name, by_plugin } = unready;
        let Some(problem) = self.problems.get_mut(*at) else { return };
        problem.text =
            format!("pod {namespace}/{name} has no working proxy: it says that its traffic is not captured");
        if *by_plugin {
            problem.advice = Some(format!(
                "the CNI plugin was not in place on its node when it started; once it is, kubectl delete pod -n {namespace} {name}"
            ));
        }
    }

    fn findings(self) -> Vec<Finding> {
        let Self { config: _, ready, opted_out, problems, unready: _ } = self;
        let mut findings = vec![Finding::ok(
            "pods",
            format!(
                "{ready} pods have a proxy that is ready, with its capture; {opted_out} of enrolled namespaces have none by choice"
            ),
        )];
        let more = problems.len().saturating_sub(NAMED);
        let worst = problems.iter().skip(NAMED).map(|finding| finding.level).max();
        findings.extend(problems.into_iter().take(NAMED));
        if let Some(level) = worst {
            let advice = Some("see to the first ones".to_owned());
            findings.push(Finding { level, about: "pods", text: format!("and {more} more"), advice });
        }
        findings
    }
}

/// Whether a pod without a proxy is worth a word: its namespace is enrolled.
fn is_noteworthy(reason: &Reason, enrolled: bool) -> bool {
    enrolled && !matches!(reason, Reason::OtherRevision(_) | Reason::SystemNamespace(_))
        || matches!(reason, Reason::NamespaceUnclear(..))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::check::Level;

    fn found(pods: &[Value]) -> Vec<Finding> {
        found_in(&InjectionConfig::default(), "leno.dev/inject", pods)
    }

    /// In a namespace that a label says `enabled` of.
    fn found_in(config: &InjectionConfig, label: &str, pods: &[Value]) -> Vec<Finding> {
        let mut mesh = Mesh::new(config.clone());
        let namespace =
            leno_inject::Namespace::of(&json!({"metadata": {"name": "shop", "labels": {label: "enabled"}}}));
        for pod in pods {
            mesh.take(&namespace, &serde_json::from_value(pod.clone()).unwrap());
        }
        mesh.findings()
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}})
    }

    fn injected(ready: bool, capture_code: i32) -> Value {
        let mut pod = pod("a");
        pod["metadata"]["annotations"] = json!({"sidecar.istio.io/status": "{}", "leno.dev/rev": "default"});
        pod["spec"]["initContainers"] = json!([{"name": "istio-proxy"}]);
        let status = |name: &str, ready: bool, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state, "lastState": {}});
        pod["status"]["initContainerStatuses"] = json!([
            status("leno-init", true, json!({"terminated": {"exitCode": capture_code}})),
            status("istio-proxy", ready, json!({})),
        ]);
        pod
    }

    #[test]
    fn a_pod_that_should_have_a_proxy_is_named_with_the_reason() {
        let findings = found(&[pod("old")]);
        assert_eq!(findings[1].level, Level::Warn);
        let text = findings[1].to_string();
        assert!(
            text.contains("shop/old") && text.contains("leno.dev/inject") && text.contains("restart"),
            "{text}"
        );
    }

    #[test]
    fn who_opted_out_is_counted_and_who_cannot_be_is_named() {
        let mut out = pod("batch");
        out["metadata"]["labels"] = json!({"leno.dev/inject": "disabled"});
        let mut host = pod("agent");
        host["spec"]["hostNetwork"] = json!(true);
        let findings = found(&[out, host]);
        assert!(findings[0].text.contains("2 of enrolled"), "{}", findings[0]);
        assert!(findings.len() == 2 && findings[1].text.contains("shop/agent"), "{findings:?}");
    }

    #[test]
    fn a_pod_that_another_mesh_came_to_first_is_named() {
        let mut istios = injected(true, 0);
        istios["metadata"]["annotations"] = json!({"sidecar.istio.io/status": "{}"});
        let findings = found(std::slice::from_ref(&istios));
        assert!(findings.len() == 2 && findings[1].level == Level::Warn, "{findings:?}");
        assert!(findings[1].text.contains("another mesh"), "{}", findings[1]);
        let istios_namespace = found_in(&InjectionConfig::default(), "istio-injection", &[istios]);
        assert_eq!(istios_namespace.len(), 1, "there it belongs");
    }

    #[test]
    fn where_istios_labels_enrol_they_count_here_too() {
        let mut host = pod("agent");
        host["spec"]["hostNetwork"] = json!(true);
        let config = InjectionConfig { istio_labels: true, ..InjectionConfig::default() };
        assert_eq!(found_in(&config, "istio-injection", std::slice::from_ref(&host)).len(), 2);
        assert_eq!(found_in(&InjectionConfig::default(), "istio-injection", &[host]).len(), 1);
    }

    #[test]
    fn a_proxy_that_is_not_ready_fails_and_says_whether_capture_did() {
        assert_eq!(found(&[injected(true, 0)]).len(), 1);
        let findings = found(&[injected(false, 0)]);
        assert_eq!(findings[1].level, Level::Fail);
        let findings = found(&[injected(false, 1)]);
        assert!(findings[1].to_string().contains("kubectl logs -n shop a -c leno-init"), "{}", findings[1]);
    }

    /// As an installation with `injection.capture: cni` makes it.
    fn by_plugin(running: bool) -> Value {
        let mut pod = injected(false, 0);
        pod["metadata"]["annotations"]["leno.dev/capture"] = json!("[]");
        let statuses = pod["status"]["initContainerStatuses"].as_array_mut().unwrap();
        statuses.remove(0);
        if running {
            statuses[0]["state"] = json!({"running": {"startedAt": null}});
        }
        pod
    }

    #[test]
    fn a_pod_that_waits_for_the_plugin_is_told_from_one_that_started_without_it() {
        let findings = found(&[by_plugin(false)]);
        assert!(findings[1].to_string().contains("kubectl describe pod -n shop a"), "{}", findings[1]);
        let mut mesh = Mesh::new(InjectionConfig::default());
        mesh.proxy("shop/a", &serde_json::from_value(by_plugin(true)).unwrap());
        let unready = mesh.unready.remove(0);
        assert!(mesh.problems[0].to_string().contains("kubectl logs"), "{}", mesh.problems[0]);
        mesh.is_uncaptured(&unready);
        let text = mesh.problems[0].to_string();
        assert!(text.contains("is not captured") && text.contains("kubectl delete pod -n shop a"), "{text}");
    }

    #[test]
    fn pods_that_have_ended_do_not_count_and_many_are_summed_up() {
        let mut ended = pod("job");
        ended["status"]["phase"] = json!("Succeeded");
        assert_eq!(found(&[ended]).len(), 1);
        let many: Vec<Value> = (0..30).map(|n| pod(&format!("p{n}"))).collect();
        assert_eq!(found(&many).last().unwrap().text, "and 10 more");
    }
}
