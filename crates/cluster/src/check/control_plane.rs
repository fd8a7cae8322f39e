//! The control plane's pods.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;

use super::{Finding, Look};

/// The label with the release that an object is of.
const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// Whether the control plane's pods are ready and of this version.
pub(super) async fn findings(look: &Look<'_>) -> Vec<Finding> {
    let name = &look.names.control;
    let api: Api<Deployment> = Api::namespaced(look.client.clone(), &look.names.namespace);
    let what = format!("Deployment {}/{name}", look.names.namespace);
    let found = match api.get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return vec![Finding::fail(
                "control-plane",
                format!("{what} is not there"),
                "run `leno install`",
            )];
        }
        Err(error) => return vec![Finding::unseen("control-plane", &what, &error)],
    };
    let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let text = format!("the control plane has {ready} of {wanted} pods ready");
    let look_at = format!("kubectl describe pods -n {} -l app=leno-control", look.names.namespace);
    let pods = match (ready, wanted) {
        (0, _) => Finding::fail("control-plane", text, look_at),
        (ready, wanted) if ready < wanted => Finding::warn("control-plane", text, look_at),
        _ => Finding::ok("control-plane", text),
    };
    let version = found.metadata.labels.unwrap_or_default().remove(VERSION_LABEL).unwrap_or_default();
    let ours = env!("CARGO_PKG_VERSION");
    let version = if version == ours {
        Finding::ok(
            "control-plane-version",
            format!("the control plane is of version {version}, as is this program"),
        )
    } else {
        Finding::warn(
            "control-plane-version",
            format!("the control plane is of version {version}, this program of {ours}"),
            "upgrade one of them",
        )
    };
    vec![pods, version]
}
