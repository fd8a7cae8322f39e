//! Several clusters: whether others can come in, and whether the control plane hears them.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{Finding, Look};

/// Of the control plane: whether a cluster is not heard at present.
const STALE: &str = "leno_control_peer_stale";

pub(super) async fn findings(look: &Look<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if look.values.discovery.expose {
        findings
            .push(way_in(look, "peers-address", &look.names.peers, "control planes of other clusters").await);
    }
    if look.values.east_west.enabled {
        findings
            .push(way_in(look, "east-west-address", &look.names.east_west, "pods of other networks").await);
    }
    if !look.values.peers.is_empty() {
        match metrics(look).await {
            Ok(page) => {
                let peers = look.values.peers.iter();
                findings.extend(peers.map(|peer| heard(&page, &peer.cluster, &look.names.namespace)));
            }
            Err(unseen) => findings.push(unseen),
        }
    }
    findings
}

/// Whether a Service of type LoadBalancer has an address.
async fn way_in(look: &Look<'_>, about: &'static str, name: &str, who: &str) -> Finding {
    let namespace = &look.names.namespace;
    let what = format!("Service {namespace}/{name}");
    let service = match Api::<Service>::namespaced(look.client.clone(), namespace).get_opt(name).await {
        Ok(Some(service)) => service,
        Ok(None) => return Finding::fail(about, format!("{what} is not there"), "run `leno install`"),
        Err(error) => return Finding::unseen(about, &what, &error),
    };
    let ingress =
        service.status.and_then(|it| it.load_balancer).and_then(|it| it.ingress).unwrap_or_default();
    let addresses: Vec<String> = ingress.into_iter().filter_map(|it| it.hostname.or(it.ip)).collect();
    if addresses.is_empty() {
        let text = format!("{what} has no address: {who} cannot come in");
        return Finding::fail(about, text, format!("kubectl describe service -n {namespace} {name}"));
    }
    Finding::ok(about, format!("{who} come in at {}", addresses.join(", ")))
}

/// What one replica of the control plane says of itself.
async fn metrics(look: &Look<'_>) -> Result<String, Finding> {
    let namespace = &look.names.namespace;
    let unseen =
        |error: kube::Error| Finding::unseen("peers", "which clusters the control plane hears", &error);
    let selector = format!("app=leno-control,app.kubernetes.io/instance={}", look.values.revision);
    let pods: Api<Pod> = Api::namespaced(look.client.clone(), namespace);
    let pods = pods.list(&ListParams::default().labels(&selector).limit(1)).await.map_err(unseen)?;
    let Some(pod) = pods.items.first() else {
        let text = "no control plane can be asked which clusters it hears";
        return Err(Finding::fail("peers", text, "run `leno install`"));
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods/{}:15014/proxy/metrics", pod.name_any());
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| unseen(kube::Error::HttpError(error)))?;
    look.client.request_text(request).await.map_err(unseen)
}

/// Whether a page of metrics says that a cluster is heard.
fn heard(page: &str, cluster: &str, namespace: &str) -> Finding {
    let prefix = format!("{STALE}{{cluster=\"{cluster}\"}} ");
    match page.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim) {
        Some("0") => Finding::ok("peers", format!("the control plane hears the cluster {cluster}")),
        Some(_) => Finding::fail(
            "peers",
            format!("the control plane does not hear the cluster {cluster}"),
            format!("its log says why: kubectl logs -n {namespace} -l app=leno-control"),
        ),
        None => Finding::fail(
            "peers",
            format!("the control plane does not know the cluster {cluster}"),
            "run `leno install` with these values",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_cluster_is_heard_silent_or_unknown() {
        let page = "# HELP leno_control_peer_stale x\nleno_control_peer_stale{cluster=\"east\"} 0\nleno_control_peer_stale{cluster=\"north\"} 1\n";
        assert_eq!(heard(page, "east", "leno-system").level, Level::Ok);
        let silent = heard(page, "north", "leno-system");
        assert!(silent.level == Level::Fail && silent.text.contains("does not hear"), "{silent}");
        let unknown = heard(page, "south", "leno-system");
        assert!(unknown.level == Level::Fail && unknown.text.contains("does not know"), "{unknown}");
    }
}
