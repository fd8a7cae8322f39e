//! Manifests compiled without a mesh, and a running mesh's compilation, in one form.

use std::path::PathBuf;

use anyhow::Context as _;
use leno_apis::Diagnostic;
use leno_compile::{Compiled, MeshSettings, World, compile};
use leno_lab::mesh::ClusterRecord;
use leno_model::Resource;
use leno_sources::{FileSource, Reading};

use crate::{failure::Failure, live};

/// A world and what it means.
pub(crate) struct Offline {
    pub(crate) reading: Reading,
    pub(crate) world: World,
    pub(crate) compiled: Compiled,
}

/// Reads and compiles manifests; pods and addresses are what Kubernetes' controllers would add.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Offline, Failure> {
    let mut source = FileSource::new(paths.iter().cloned());
    let reading = source.read().map_err(Failure::usage)?.unwrap_or_default();
    let objects: Vec<_> = reading.objects.values().cloned().collect();
    let world = World::of(leno_analyze::embedded::materialise(&objects));
    let compiled = compile(&world, &MeshSettings::default(), &[]);
    Ok(Offline { reading, world, compiled })
}

impl Offline {
    /// Everything that is said about the manifests, by place.
    pub(crate) fn diagnostics(&self) -> Vec<Diagnostic> {
        let found = leno_analyze::analyze(&self.world, &self.compiled);
        let mut all: Vec<_> =
            self.reading.diagnostics.iter().chain(&self.compiled.diagnostics).cloned().chain(found).collect();
        all.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
        all
    }
}

/// What a running cluster's control plane publishes.
pub(crate) async fn of_cluster(cluster: &ClusterRecord) -> Result<Compiled, Failure> {
    let mut world = live::ask(cluster, "/v1/world").await?;
    let resources: Vec<Resource> = serde_json::from_value(world["resources"].take())
        .with_context(|| format!("the control plane of {} is of another version", cluster.name))
        .map_err(Failure::Unreachable)?;
    let mut compiled = Compiled::default();
    compiled.resources = resources.into_iter().map(|resource| (resource.key(), resource)).collect();
    Ok(compiled)
}
