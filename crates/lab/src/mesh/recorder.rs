//! Keeps `mesh.json` and those inside this process up to date with what runs.
//!
//! Invariant: a mesh that runs already is not written over; the file goes with its mesh.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

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
            && other.is_running()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{record::VERSION, runtime_dir::RuntimeDir};

    #[test]
    fn a_record_is_taken_from_a_killed_mesh_and_not_from_one_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh.json");
        let record = |supervisor: PathBuf| {
            // The process is there, as one is that has ended and that nobody has waited for.
            let record =
                MeshRecord { version: VERSION, pid: std::process::id(), supervisor, clusters: Vec::new() };
            replace(&path, &serde_json::to_vec(&record).unwrap()).unwrap();
        };
        let runtime = RuntimeDir::create(folder.path()).unwrap();
        record(runtime.path().join("supervisor.sock"));
        let refused = RecordFile::take(&path).unwrap_err();
        assert!(refused.to_string().contains("a mesh runs already (process "), "{refused}");

        let killed = folder.path().join("mesh-1-00000000");
        std::fs::create_dir(&killed).unwrap();
        record(killed.join("supervisor.sock"));
        assert!(RecordFile::take(&path).is_ok());
    }
}
