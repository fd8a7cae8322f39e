//! What a control plane does on a Kubernetes cluster beyond reading its objects.
//!
//! | module | holds |
//! | --- | --- |
//! | `authority` | the issuing authority in a Secret |
//! | `token_review` | who a pod is, by its service account token |
//! | `webhook` | the injector, over HTTPS |
//! | `monitoring` | readiness, metrics and version for kubelet and Prometheus |
//! | `lease` | which replica does what only one may do |
//! | `leader` | and what that is: root certificates for namespaces, the webhook's bundle, statuses, Events |
//! | `east_west` | where callers of other networks come in |
//! | `gateways` | what runs the Gateways of our class, and where they are reached |
//!
//! Invariants: what needs the API server fails by itself and is tried again: proxies are served without it; writes are made by
//! the leader only, and only when something differs.

pub(crate) mod authority;
pub(crate) mod east_west;
pub(crate) mod events;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod gateways;
pub(crate) mod leader;
pub(crate) mod lease;
pub(crate) mod monitoring;
pub(crate) mod status;
pub(crate) mod token_review;
pub(crate) mod webhook;

use kube::Client;

use crate::config::KubernetesConfig;

/// Field manager of what this control plane applies.
pub(crate) const MANAGER: &str = "leno-control";

/// The cluster as a control plane sees it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) config: KubernetesConfig,
    /// This replica's pod.
    pub(crate) pod: String,
}

/// The API server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Where it is, or who we are, is not known.
    #[error("there is no usable Kubernetes configuration (neither a service account nor a kubeconfig)")]
    Configuration(#[source] Box<kube::Error>),
    /// A request failed.
    #[error("{what}")]
    Request {
        /// What was asked for.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The authority's Secret is not usable.
    #[error("Secret {name}: {problem}")]
    Secret {
        /// Namespace and name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A new authority cannot be made.
    #[error("a new authority cannot be made")]
    Root(#[from] leno_ca::RootProblem),
}

impl KubernetesError {
    /// What the API server said when it refused a request that it would refuse again: it is forbidden, invalid or over a quota.
    pub(crate) fn refusal(&self) -> Option<String> {
        let Self::Request { what, source } = self else { return None };
        match &**source {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
                Some(format!("{what}: {}", status.message))
            }
            _ => None,
        }
    }
}

impl Cluster {
    /// By the pod's service account, or by `KUBECONFIG`.
    pub(crate) async fn connect(config: KubernetesConfig) -> Result<Self, KubernetesError> {
        let client =
            Client::try_default().await.map_err(|error| KubernetesError::Configuration(Box::new(error)))?;
        let pod =
            std::env::var("POD_NAME").unwrap_or_else(|_| format!("leno-control-{}", std::process::id()));
        Ok(Self { client, config, pod })
    }

    /// The names by which the API server calls the webhook.
    pub(crate) fn service_names(&self) -> Vec<String> {
        let (service, namespace) = (self.config.control(), &self.config.namespace);
        vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")]
    }
}

/// Names what was asked for when it failed.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> KubernetesError {
    let what = what.into();
    move |source| KubernetesError::Request { what, source: Box::new(source) }
}

/// Whether the API server says that an object is not there.
pub(crate) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
