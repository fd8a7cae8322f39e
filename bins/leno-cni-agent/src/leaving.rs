//! Whether the agent is being removed, or only restarted: what its DaemonSet says.
//!
//! Invariant: when nobody can say, it is a restart. An entry that stays makes pods of the mesh wait; one that goes too early lets them start
//! uncaptured.

use std::{str::FromStr, time::Duration};

use k8s_openapi::api::apps::v1;
use kube::{Api, Client, Config};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent's own DaemonSet.
#[derive(Clone, Debug)]
pub(crate) struct DaemonSet {
    namespace: String,
    name: String,
}

impl FromStr for DaemonSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        let (namespace, name) = parts.ok_or_else(|| format!("{text:?} is no NAMESPACE/NAME"))?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl DaemonSet {
    /// Whether it is gone or going.
    pub(crate) async fn is_gone(&self) -> bool {
        let client = Config::incluster()
            .map_err(anyhow::Error::from)
            .and_then(|config| Client::try_from(config).map_err(anyhow::Error::from));
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!("there is no API server to ask whether the DaemonSet is there: {error:#}");
                return false;
            }
        };
        match tokio::time::timeout(PATIENCE, self.deleted(client)).await {
            Ok(Ok(gone)) => gone,
            // The right to ask is of the same installation: who takes it away takes all of it away.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the API server does not say whether the DaemonSet is there");
                false
            }
            Err(_) => {
                tracing::warn!("the API server has not said for {PATIENCE:?} whether the DaemonSet is there");
                false
            }
        }
    }

    async fn deleted(&self, client: Client) -> Result<bool, kube::Error> {
        let api: Api<v1::DaemonSet> = Api::namespaced(client, &self.namespace);
        let found = api.get_metadata_opt(&self.name).await?;
        Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
    }
}
