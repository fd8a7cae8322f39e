//! What other clusters said last, on disk, so that a restart does not forget their endpoints.
//!
//! Invariant: a file is replaced as a whole; one that does not read is as good as none.

use std::{fs, io, path::PathBuf};

use leno_compile::RemoteCluster;
use leno_model::{ClusterName, TrustDomain};
use leno_xds::{EncodedResource, ResourceKey};
use serde::{Deserialize, Serialize};

use super::told;

/// Larger files are not ours.
const MAX_BYTES: u64 = 256 << 20;

/// The form's version.
const FORMAT: u32 = 1;

/// Where it is kept. `None`: nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    format: u32,
    told: Vec<(String, Vec<u8>)>,
}

impl Memory {
    fn path(&self, cluster: &ClusterName) -> Option<PathBuf> {
        // A cluster's name comes from the configuration; one that is no file name is not kept.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = cluster.as_str();
        let folder = self.folder.as_ref()?;
        (name.chars().all(plain) && !name.starts_with('.'))
            .then(|| folder.join(format!("peer-{name}.msgpack")))
    }

    /// Keeps what a cluster told.
    pub(crate) fn keep<'a>(
        &self,
        cluster: &ClusterName,
        told: impl Iterator<Item = &'a EncodedResource>,
    ) -> io::Result<()> {
        let Some(path) = self.path(cluster) else { return Ok(()) };
        let told = told.map(|it| (it.key.name.to_string(), it.payload.to_vec())).collect();
        let bytes = rmp_serde::to_vec(&Remembered { format: FORMAT, told }).map_err(io::Error::other)?;
        let beside = path.with_extension("new");
        fs::write(&beside, bytes)?;
        fs::rename(&beside, &path)
    }

    /// What a cluster told last, for the compiler; stale by its nature.
    pub(crate) fn remote(&self, cluster: &ClusterName, domain: &TrustDomain) -> Option<RemoteCluster> {
        super::listener::remote_of(cluster, domain, self.recall(cluster, domain).iter(), true)
    }

    /// What a cluster told last, as far as it is believed.
    pub(crate) fn recall(&self, cluster: &ClusterName, domain: &TrustDomain) -> Vec<EncodedResource> {
        let Some(path) = self.path(cluster) else { return Vec::new() };
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
        let Some(bytes) = small.then(|| fs::read(&path).ok()).flatten() else { return Vec::new() };
        let Ok(remembered) = rmp_serde::from_slice::<Remembered>(&bytes) else {
            tracing::warn!(path = %path.display(), "what was kept of another cluster does not read");
            return Vec::new();
        };
        if remembered.format != FORMAT {
            return Vec::new();
        }
        let named = remembered.told.into_iter().filter(|(name, _)| !name.is_empty());
        let resources = named.map(|(name, payload)| {
            EncodedResource::new(ResourceKey::new(told::KIND, name), payload.into(), Vec::new())
        });
        resources.filter(|resource| told::believe(cluster, domain, resource).is_ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_recalled_and_a_damaged_file_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory { folder: Some(folder.path().to_owned()) };
        let text = r#"{"cluster": "west", "listen": "127.0.0.1:0", "api": "127.0.0.1:0", "paths": [], "ca_dir": ""}"#;
        let told = told::tell(&serde_json::from_str(text).unwrap(), &[], &[]);
        memory.keep(&"west".into(), told.values()).unwrap();
        let domain = TrustDomain::default();
        assert_eq!(memory.recall(&"west".into(), &domain), told.into_values().collect::<Vec<_>>());
        assert!(memory.recall(&"east".into(), &domain).is_empty());
        fs::write(folder.path().join("peer-west.msgpack"), b"?").unwrap();
        assert!(memory.recall(&"west".into(), &domain).is_empty());
    }
}
