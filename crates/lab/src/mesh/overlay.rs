//! What the control plane is told of the pods that run, and what users are told of their manifests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use leno_apis::Severity;
use leno_sources::{Overlay, Reading};

use crate::embedded::{PlannedService, PodPlan, PodState};

/// Where a cluster's overlay is: in a folder of its own, because whoever watches it watches the folder.
pub(super) fn file(cluster: &Path) -> PathBuf {
    cluster.join("overlay").join("overlay.json")
}

/// Replaces the overlay.
pub(super) fn write<'a>(
    file: &Path,
    services: &[PlannedService],
    pods: impl Iterator<Item = (&'a PodPlan, PodState)>,
) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let allotted = services.iter().filter(|service| service.allotted);
    let overlay = Overlay {
        services: allotted
            .filter_map(|service| {
                Some((format!("{}/{}", service.namespace, service.name), *service.addresses.first()?))
            })
            .collect(),
        pods: pods.map(|(plan, state)| plan.to_json(state)).collect(),
    };
    overlay.write(file)
}

/// Says what is wrong with manifests, and the first time which kinds are not used.
pub(super) fn tell(cluster: &str, reading: &Reading, first: bool) {
    for diagnostic in &reading.diagnostics {
        match diagnostic.severity {
            Severity::Error => tracing::error!(cluster, "{diagnostic}"),
            Severity::Warning => tracing::warn!(cluster, "{diagnostic}"),
            Severity::Info => tracing::debug!(cluster, "{diagnostic}"),
        }
    }
    for kept in &reading.kept {
        tracing::warn!(cluster, "{kept} stays in force as it was");
    }
    if first && !reading.unused_kinds.is_empty() {
        let kinds: Vec<_> =
            reading.unused_kinds.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
        // Not an error, and yet what somebody wonders about whose object does nothing.
        tracing::warn!(cluster, "not used: {}", kinds.join(", "));
    }
}
