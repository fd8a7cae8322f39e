//! The files of a running mesh: keys, tokens, configurations.
//!
//! Invariants: nobody but the owner can look inside (0700, and 0600 for each file); a file is replaced by renaming, so that
//! a reader sees the old or the new one; all of it goes with the mesh.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A folder that is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Makes one beside the mesh's record, or in memory where the machine has such a place.
    pub(super) fn create(beside: &Path) -> io::Result<Self> {
        private(beside)?;
        let path = beside.join(format!("mesh-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "is left behind");
        }
    }
}

/// Makes a folder that only its owner can enter, and believes none that another user made in advance.
pub(super) fn private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        let owner = fs::metadata(path)?.uid();
        if owner != rustix::process::getuid().as_raw() {
            let message = format!("{} belongs to another user", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file as a whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let next = PathBuf::from(next);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_folder_is_private_and_goes_with_its_mesh() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::create(&parent.path().join("leno")).unwrap();
        let file = runtime.path().join("tokens.json");
        replace(&file, b"{}").unwrap();
        assert_eq!(fs::metadata(runtime.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let path = runtime.path().to_owned();
        drop(runtime);
        assert!(!path.exists());
    }
}
