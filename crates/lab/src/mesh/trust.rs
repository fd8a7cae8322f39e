//! The mesh's root and its clusters' authorities, made anew for each mesh.
//!
//! Invariant: the root's key is dropped once every cluster has its intermediate; it is never on disk.

use std::{path::Path, time::SystemTime};

use leno_ca::{CacertsProblem, Intermediate, NoRandomness, Root, root::RootProblem};
use leno_identity::UnixTime;
use leno_model::TrustDomain;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A key or certificate cannot be made.
    #[error("the mesh's certificate authority cannot be made")]
    Root(#[from] RootProblem),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// It cannot be written.
    #[error("the authority of a cluster cannot be written")]
    Write(#[from] CacertsProblem),
}

/// Makes a root and, in each folder, the authority of the cluster of that name. The root's certificate as PEM.
pub(super) fn make<'a>(
    domain: &TrustDomain,
    clusters: impl Iterator<Item = (&'a str, &'a Path)>,
) -> Result<String, TrustError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(now);
    let root = Root::generate(domain, now)?;
    for (cluster, folder) in clusters {
        Intermediate::issue_by(&root, cluster, now)?.pem().write(folder)?;
    }
    Ok(root.certificate_pem())
}
