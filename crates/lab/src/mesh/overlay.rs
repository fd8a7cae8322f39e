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

/// Names the paths without anything that a mesh uses: most often a folder that was meant to be another.
pub(super) fn tell_of_nothing(cluster: &str, paths: &[PathBuf], reading: &Reading) {
    for path in without_objects(paths, reading) {
        tracing::warn!(cluster, "{}: no object that a mesh uses is there", path.display());
    }
}

fn without_objects<'p>(paths: &'p [PathBuf], reading: &Reading) -> Vec<&'p Path> {
    let used = reading.objects.values().map(|object| &object.source().file);
    // What is broken or a second of one name is told of anyway.
    let told = reading.diagnostics.iter().map(|diagnostic| &diagnostic.at.file);
    let files: Vec<&Path> = used.chain(told).map(|file| Path::new(&**file)).collect();
    let nothing = |path: &&PathBuf| !files.iter().any(|file| file.starts_with(path));
    paths.iter().filter(nothing).map(PathBuf::as_path).collect()
}

/// Whether something is wrong with manifests.
pub(super) fn is_broken(reading: &Reading) -> bool {
    reading.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
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

#[cfg(test)]
mod tests {
    use leno_sources::FileSource;

    use super::*;

    #[test]
    fn a_path_that_gives_nothing_is_named_whatever_the_others_give() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("shop/a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"),
            ("maps/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"),
            ("broken.yaml", "apiVersion: v1\nkind: Service\n"),
        ] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        }
        fs::create_dir(at("empty")).unwrap();
        let paths = ["shop", "maps", "empty", "broken.yaml"].map(at).to_vec();
        let reading = FileSource::new(paths.clone()).read().unwrap().unwrap();
        assert_eq!(without_objects(&paths, &reading), [at("maps"), at("empty")]);
        assert!(is_broken(&reading));
    }
}
