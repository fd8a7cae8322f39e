//! Capture by a CNI plugin: the nodes' agent, and what a proxy itself says of its capture when it is not ready.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use leno_inject::{Capture, contract::METRICS_PORT};

use super::{Finding, Look};

/// The proxy's own metric: 1 when its capture works, 0 when it does not.
const CAPTURE_WORKS: &str = "leno_capture_works";
/// How long a proxy may take to answer, through the API server.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether each node has an agent that has put the plugin in place.
pub(super) async fn findings(look: &Look<'_>) -> Vec<Finding> {
    if look.values.injection.capture != Capture::Cni {
        return Vec::new();
    }
    let (namespace, name) = (&look.values.cni.namespace, &look.names.agent);
    let api: Api<DaemonSet> = Api::namespaced(look.client.clone(), namespace);
    let what = format!("DaemonSet {namespace}/{name}");
    let status = match api.get_opt(name).await {
        Ok(Some(found)) => found.status.unwrap_or_default(),
        Ok(None) => {
            let advice =
                "run `leno install`; until then pods of the mesh start uncaptured, and are not ready";
            return vec![Finding::fail("cni", format!("{what} is not there"), advice)];
        }
        Err(error) => return vec![Finding::unseen("cni", &what, &error)],
    };
    let (wanted, ready) = (status.desired_number_scheduled, status.number_ready);
    let text = format!("the CNI plugin is in place on {ready} of {wanted} nodes");
    let advice = format!(
        "on the others pods of the mesh do not start: kubectl get pods -n {namespace} -l app=leno-cni -o wide, and their logs"
    );
    vec![match (ready, wanted) {
        (0, _) => Finding::fail("cni", text, advice),
        (ready, wanted) if ready < wanted => Finding::warn("cni", text, advice),
        _ => Finding::ok("cni", text),
    }]
}

/// Whether a proxy that is not ready says that its traffic is not captured; nothing when it cannot be asked.
pub(super) async fn is_uncaptured(client: &Client, namespace: &str, pod: &str) -> Option<bool> {
    // Its readiness page says more, with a status at which the client would ask again and again.
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{METRICS_PORT}/proxy/stats/prometheus");
    let request = Request::get(path).body(Vec::new()).ok()?;
    let metrics = tokio::time::timeout(PATIENCE, client.request_text(request)).await.ok()?.ok()?;
    Some(says_uncaptured(&metrics))
}

fn says_uncaptured(metrics: &str) -> bool {
    let value = |line: &str| line.strip_prefix(CAPTURE_WORKS)?.rsplit(' ').next()?.parse::<f64>().ok();
    metrics.lines().filter_map(value).any(|works| works == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_metrics_say_whether_its_traffic_is_captured() {
        let page = |value: &str| {
            format!("# TYPE leno_capture_works gauge\nleno_capture_works{{}} {value}\nother 0\n")
        };
        assert!(says_uncaptured(&page("0")));
        assert!(!says_uncaptured(&page("1")));
        assert!(says_uncaptured("leno_capture_works 0"));
        assert!(!says_uncaptured("leno_capture_failures_total{cause=\"silence\"} 0"), "it has not tried yet");
    }
}
