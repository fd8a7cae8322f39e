//! The last good configuration and certificate on disk, so that a proxy restarts and serves without its control plane.
//!
//! The directory is memory-backed and belongs to the pod; files have mode 0600 and are replaced by rename, without waiting
//! for a disk: what a crash of the machine loses is of no use after it. What is expired,
//! of another version or damaged is not used: the proxy then starts as if new.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use leno_identity::{TrustBundle, WorkloadCertificate};
use leno_model::{Resource, TrustDomain};

/// Version of the files' layout. Another one is ignored.
const LAYOUT: &[u8; 8] = b"leno-0.1";

/// Largest snapshot that is read back.
const MAX_SNAPSHOT: u64 = 512 * 1024 * 1024;

/// A proxy's state directory.
#[derive(Debug)]
pub(crate) struct StateDir(PathBuf);

/// What a proxy keeps of its configuration.
pub(crate) struct Snapshot {
    /// Scopes it was subscribed to.
    pub(crate) scopes: Vec<String>,
    /// What it held: kind, name, payload as it came.
    pub(crate) resources: Vec<Resource>,
}

impl StateDir {
    /// Opens the directory, making it if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Keeps a certificate with its key and roots.
    pub(crate) fn save_certificate(&self, certificate: &WorkloadCertificate, roots: &TrustBundle) {
        let saved = self
            .replace("chain.pem", certificate.chain_pem().as_bytes())
            .and_then(|()| self.replace("roots.pem", roots.to_pem().as_bytes()))
            .and_then(|()| self.replace("key.pem", certificate.key_pem().as_bytes()));
        if let Err(error) = saved {
            tracing::warn!(%error, path = %self.0.display(), "the certificate is not kept for a restart");
        }
    }

    /// The certificate that was kept, if it is whole and valid.
    pub(crate) fn load_certificate(
        &self,
        domain: &TrustDomain,
    ) -> Option<(WorkloadCertificate, TrustBundle)> {
        let chain = fs::read(self.0.join("chain.pem")).ok()?;
        let key = fs::read(self.0.join("key.pem")).ok()?;
        let roots = fs::read(self.0.join("roots.pem")).ok()?;
        let certificate = WorkloadCertificate::from_pem(&chain, &key).ok()?;
        let bundle = TrustBundle::from_pem(domain.clone(), &roots).ok()?;
        certificate.is_valid_at(super::enrol::now()).then_some((certificate, bundle))
    }

    /// Keeps a configuration.
    pub(crate) fn save_snapshot<'a>(
        &self,
        scopes: &[String],
        resources: impl Iterator<Item = &'a Resource>,
    ) -> io::Result<()> {
        let mut bytes = LAYOUT.to_vec();
        write_block(&mut bytes, &serde_json::to_vec(scopes)?);
        for resource in resources {
            let key = resource.key();
            bytes.extend((key.kind as u32).to_be_bytes());
            write_block(&mut bytes, key.name.as_bytes());
            write_block(&mut bytes, &leno_wire::encode(resource).map_err(io::Error::other)?);
        }
        self.replace("snapshot", &bytes)
    }

    /// The configuration that was kept; `None` when there is none or it is not whole.
    pub(crate) fn load_snapshot(&self) -> Option<Snapshot> {
        let path = self.0.join("snapshot");
        if fs::metadata(&path).ok()?.len() > MAX_SNAPSHOT {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let mut rest = bytes.strip_prefix(LAYOUT.as_slice())?;
        let scopes = serde_json::from_slice(read_block(&mut rest)?).ok()?;
        let mut resources = Vec::new();
        while !rest.is_empty() {
            let kind = read_number(&mut rest)?;
            let name = std::str::from_utf8(read_block(&mut rest)?).ok()?;
            resources.push(leno_wire::decode(kind, name, read_block(&mut rest)?).ok()?);
        }
        Some(Snapshot { scopes, resources })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.0.join(format!("{name}.new"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(temporary, self.0.join(name))
    }
}

fn write_block(bytes: &mut Vec<u8>, block: &[u8]) {
    bytes.extend(u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(block);
}

fn read_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*number))
}

fn read_block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_number(rest)?).ok()?;
    let (block, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(block)
}

#[cfg(test)]
mod tests {
    use leno_model::{EndpointSet, ServiceId};

    use super::*;

    #[test]
    fn a_snapshot_survives_and_a_damaged_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert!(state.load_snapshot().is_none());
        let service = ServiceId::kubernetes("default", "a");
        let resource = Resource::Endpoints(EndpointSet { service, endpoints: vec![], stale: vec![] }.into());
        state.save_snapshot(&["scope/default/x".to_owned()], [&resource].into_iter()).unwrap();
        let snapshot = state.load_snapshot().unwrap();
        assert_eq!(snapshot.scopes, ["scope/default/x"]);
        assert_eq!(snapshot.resources, [resource]);

        let file = folder.path().join("snapshot");
        let bytes = fs::read(&file).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&file, &bytes[..cut]).unwrap();
            let loaded = state.load_snapshot();
            assert!(loaded.is_none_or(|snapshot| snapshot.resources.is_empty()), "cut at {cut}");
        }
    }
}
