//! Keeps `mesh.json` and those inside this process up to date with what runs.
//!
//! Invariant: a mesh that runs already is not written over; the file goes with its mesh.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, test_kill_process};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    record::{ClusterRecord, MeshRecord},
    runtime_dir::replace,
};

/// Changes are written together.
const GATHER: Duration = Duration::from_millis(50);

/// The file, deleted when this is dropped.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
}

impl RecordFile {
    /// Takes the file, unless another mesh that runs has it.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        if let Ok(other) = MeshRecord::read(path)
            && other.pid != std::process::id()
            && is_running(other.pid)
        {
            let message = format!(
                "a mesh runs already (process {}, {}); set LENO_MESH to another file to run one beside it",
                other.pid,
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for RecordFile {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Writes the file and tells `record` whenever a cluster changes, until `stop`.
pub(super) async fn keep(
    path: PathBuf,
    record: watch::Sender<MeshRecord>,
    mut clusters: Vec<watch::Receiver<ClusterRecord>>,
    stop: CancellationToken,
) {
    loop {
        let now: Vec<ClusterRecord> =
            clusters.iter_mut().map(|cluster| cluster.borrow_and_update().clone()).collect();
        record.send_if_modified(|record| {
            let changed = record.clusters != now;
            record.clusters = now;
            changed
        });
        let text = serde_json::to_vec_pretty(&*record.borrow()).map_err(io::Error::from);
        if let Err(error) = text.and_then(|text| replace(&path, &text)) {
            tracing::warn!(%error, path = %path.display(), "other commands do not find this mesh");
        }
        let changes = clusters.iter_mut().map(|cluster| Box::pin(cluster.changed()));
        tokio::select! {
            () = stop.cancelled() => return,
            (changed, ..) = futures_util::future::select_all(changes) => {
                if changed.is_err() {
                    // A cluster has ended, so the mesh is about to.
                    stop.cancelled().await;
                    return;
                }
            }
        }
        sleep(GATHER).await;
    }
}
