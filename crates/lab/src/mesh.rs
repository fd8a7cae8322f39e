//! A whole mesh on this machine: control planes, proxies and stand-in applications, from manifests.
//!
//! ```text
//! MeshPlan --> Mesh: runtime_dir, trust (one root, an intermediate a cluster), workers
//!                |-- cluster (one task each): files -> members -> replicas, overlay, names
//!                |     |-- control_plane       here, or a process
//!                |     |-- replica (one task each): stand_in and its proxy (proxies: here, or a process), tokens
//!                |     \-- gateways            as the control plane compiled them; repaired: when mistakes are out of force
//!                \-- record --> mesh.json      for `leno status`, `why`, `run` ...   (adoption: `leno run`)
//! ```
//!
//! Invariant: everything that was started is owned here and ended by [`Mesh::stop`]; nothing of it is left on disk.
//! Must not know: what manifests mean beyond which pods they ask for.

mod adoption;
pub mod api;
mod child;
mod cluster;
mod control_plane;
mod describe;
mod gateways;
mod members;
mod names;
mod orphans;
mod overlay;
mod plan;
mod proxies;
mod readiness;
pub mod record;
mod recorder;
mod repaired;
mod replica;
mod runtime_dir;
mod shared;
mod stand_in;
mod start;
mod tokens;
mod trust;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use adoption::{Adopted, AdoptedService, Adoption, AdoptionError};
pub use child::MissingBinary;
pub use control_plane::ControlProblem;
pub use leno_proxy::bootstrap::{AccessLog, Tracing};
pub use plan::{ClusterPlan, ClusterPlanError, MeshPlan};
pub use record::{ClusterRecord, MeshRecord, record_path};
pub use start::MeshError;

use crate::standin::Dialer;
use cluster::Command;

/// A running mesh.
pub struct Mesh {
    clusters: Vec<RunningCluster>,
    record: watch::Receiver<MeshRecord>,
    stop: CancellationToken,
    tasks: TaskTracker,
    workers: Option<Arc<leno_proxy::Workers>>,
    // Last, so that the files outlive what uses them.
    _recorder: recorder::RecordFile,
    _runtime: runtime_dir::RuntimeDir,
}

struct RunningCluster {
    name: String,
    commands: mpsc::Sender<Command>,
    names: names::Names,
}

/// A name that the mesh does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuch {
    /// No cluster.
    #[error("the mesh has no cluster {0}")]
    Cluster(String),
    /// No workload.
    #[error("the cluster {cluster} has no workload {name}")]
    Workload {
        /// The cluster.
        cluster: String,
        /// The name.
        name: String,
    },
    /// The cluster does not answer: it is being stopped.
    #[error("the cluster {0} is being stopped")]
    Stopping(String),
}

/// Why a cluster or control plane was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is none.
    #[error(transparent)]
    NoSuch(#[from] NoSuch),
    /// Its control plane does not start.
    #[error(transparent)]
    Control(#[from] ControlProblem),
}

/// A mesh whose workloads are not all ready in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ready} of {all} workloads were ready in {within:?}; not ready: {}", missing.join(", "))]
pub struct NotReady {
    /// How many were.
    pub ready: usize,
    /// How many there are.
    pub all: usize,
    /// The time it was given.
    pub within: Duration,
    /// Some of the others.
    pub missing: Vec<String>,
}

impl Mesh {
    /// Starts a mesh. Its control planes are ready when this returns; workloads follow, see [`Mesh::ready`].
    ///
    /// # Errors
    /// When manifests cannot be read, or a control plane does not start.
    pub async fn start(plan: MeshPlan) -> Result<Self, MeshError> {
        Box::pin(start::start(plan)).await
    }

    /// Waits until every workload and gateway is ready, and every proxy has heard so.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn ready(&self, within: Duration) -> Result<(), NotReady> {
        Box::pin(readiness::wait(self.record.clone(), within)).await
    }

    /// What runs at present.
    pub fn record(&self) -> MeshRecord {
        self.record.borrow().clone()
    }

    /// Follows what runs.
    pub fn changes(&self) -> watch::Receiver<MeshRecord> {
        self.record.clone()
    }

    /// Everything of a cluster ends at once: proxies, applications, control plane.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn kill_cluster(&self, cluster: &str) -> Result<(), NoSuch> {
        self.ask(cluster, Command::Kill).await
    }

    /// Starts everything of a cluster again. See [`Mesh::ready`] for its workloads.
    ///
    /// # Errors
    /// When there is no such cluster, or its control plane does not start.
    pub async fn restore_cluster(&self, cluster: &str) -> Result<(), RestoreError> {
        Ok(self.ask(cluster, Command::Restore).await??)
    }

    /// A cluster's control plane ends at once.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn kill_control(&self, cluster: &str) -> Result<(), NoSuch> {
        self.ask(cluster, Command::KillControl).await
    }

    /// Starts a cluster's control plane again.
    ///
    /// # Errors
    /// When there is no such cluster, or it does not start.
    pub async fn restore_control(&self, cluster: &str) -> Result<(), RestoreError> {
        Ok(self.ask(cluster, Command::RestoreControl).await??)
    }

    /// Drains the replicas called `NAMESPACE/NAME` (of the pod, or of its Deployment) and keeps them away.
    ///
    /// # Errors
    /// When there are none.
    pub async fn stop_workload(&self, cluster: &str, name: &str) -> Result<usize, NoSuch> {
        self.hold(cluster, name, true).await
    }

    /// Starts again what [`Mesh::stop_workload`] stopped.
    ///
    /// # Errors
    /// When there are none.
    pub async fn start_workload(&self, cluster: &str, name: &str) -> Result<usize, NoSuch> {
        self.hold(cluster, name, false).await
    }

    async fn hold(&self, cluster: &str, name: &str, held: bool) -> Result<usize, NoSuch> {
        let name = name.to_owned();
        let asked = name.clone();
        match self.ask(cluster, |done| Command::Hold { name: asked, held, done }).await? {
            0 => Err(NoSuch::Workload { cluster: cluster.to_owned(), name }),
            count => Ok(count),
        }
    }

    /// Dials as a replica of the workload `NAMESPACE/NAME` would: through its proxy, with its cluster's names.
    pub fn dialer(&self, cluster: &str, workload: &str) -> Option<Dialer> {
        let record = self.record.borrow();
        let found = record.clusters.iter().find(|found| found.name == cluster)?;
        let called = |id: &leno_model::WorkloadId, owner: &str| {
            id.to_string() == workload || workload.split_once('/') == Some((id.namespace.as_str(), owner))
        };
        let replica = found.workloads.iter().find(|it| it.ready && called(&it.id, &it.owner))?;
        let names = &self.clusters.iter().find(|it| it.name == cluster)?.names;
        let outbound = SocketAddr::new(replica.address, leno_proxy::bootstrap::OUTBOUND_PORT);
        let resolver = names.resolver(replica.id.namespace.as_str());
        Some(Dialer::through_proxy(outbound, resolver).from_source(replica.app_address))
    }

    async fn ask<T>(
        &self,
        cluster: &str,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NoSuch> {
        let found = self.clusters.iter().find(|found| found.name == cluster);
        let found = found.ok_or_else(|| NoSuch::Cluster(cluster.to_owned()))?;
        let (done, answer) = oneshot::channel();
        let stopping = || NoSuch::Stopping(cluster.to_owned());
        found.commands.send(command(done)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Drains everything and ends it.
    pub async fn stop(mut self) {
        let stopped = self.clusters.iter().map(|cluster| self.ask(&cluster.name, Command::Stop));
        for stopped in futures_util::future::join_all(stopped).await {
            if let Err(error) = stopped {
                tracing::warn!(%error, "was not stopped in good order");
            }
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(workers) = self.workers.take().and_then(Arc::into_inner) {
            // Joining threads blocks.
            let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
        }
    }
}

/// Reads what a running mesh says of itself.
///
/// # Errors
/// When no mesh runs, or another version of it.
pub fn running(path: &Path) -> std::io::Result<MeshRecord> {
    let record = MeshRecord::read(path)?;
    if record.is_running() {
        return Ok(record);
    }
    let message = format!("process {}, whose mesh it describes, has ended", record.pid);
    Err(std::io::Error::new(std::io::ErrorKind::NotFound, message))
}
