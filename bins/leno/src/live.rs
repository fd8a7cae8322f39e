//! The running mesh, found by its record.

use anyhow::Context as _;
use clap::Args;
use leno_lab::mesh::{ClusterRecord, MeshRecord, api, record_path, running};
use serde_json::Value;

use crate::failure::Failure;

/// Which clusters of the running mesh.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Which {
    /// Only this cluster of the running mesh
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

/// The running mesh.
pub(crate) fn mesh() -> Result<MeshRecord, Failure> {
    let path = record_path();
    running(&path)
        .with_context(|| format!("no mesh is described in {} (is `leno up` running?)", path.display()))
        .map_err(Failure::Unreachable)
}

/// The clusters that are meant.
pub(crate) fn clusters(which: &Which) -> Result<Vec<ClusterRecord>, Failure> {
    let mut clusters = mesh()?.clusters;
    if let Some(name) = &which.cluster {
        clusters.retain(|cluster| cluster.name == *name);
        if clusters.is_empty() {
            return Err(Failure::Usage(anyhow::anyhow!("the running mesh has no cluster {name}")));
        }
    }
    Ok(clusters)
}

/// Asks a cluster's control plane.
pub(crate) async fn ask(cluster: &ClusterRecord, path: &str) -> Result<Value, Failure> {
    let answer = api::get_json(cluster.api, path).await;
    answer
        .with_context(|| format!("the control plane of {} does not answer", cluster.name))
        .map_err(Failure::Unreachable)
}

/// Runs a command that asks over the network.
pub(crate) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::usage)?;
    runtime.block_on(Box::pin(command))
}
