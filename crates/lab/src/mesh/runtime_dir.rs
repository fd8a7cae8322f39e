//! The files of a running mesh: keys, tokens, configurations.
//!
//! Invariants: nobody but the owner can look inside (0700, and 0600 for each file); a file is replaced by renaming, so that
//! a reader sees the old or the new one; all of it goes with the mesh. The mesh holds a lock on its folder, which the kernel
//! takes back however the process ends: a folder without one is of a mesh that was killed, and the next mesh sweeps it.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::orphans;

/// What names of runtime folders begin with.
const PREFIX: &str = "mesh-";
/// Folders that are tried: one may be swept by another mesh between being made and being locked.
const TRIES: usize = 16;

/// A folder that is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
    /// The folder, locked. Released after the folder is deleted.
    _held: fs::File,
}

impl RuntimeDir {
    /// Makes one beside the mesh's record, or in memory where the machine has such a place. Those of killed meshes go.
    pub(super) fn create(beside: &Path) -> io::Result<Self> {
        private(beside)?;
        sweep(beside);
        for _ in 0..TRIES {
            let name = format!("{PREFIX}{}-{:08x}", std::process::id(), rand::random::<u32>());
            let path = beside.join(name);
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            let Ok(held) = fs::File::open(&path) else { continue };
            match held.try_lock() {
                Ok(()) if path.is_dir() => return Ok(Self { path, _held: held }),
                Ok(()) | Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other("runtime folders are swept as fast as they are made"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the mesh of a runtime folder runs.
pub(super) fn is_held(path: &Path) -> bool {
    let locked = |folder: fs::File| matches!(folder.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
    fs::File::open(path).is_ok_and(locked)
}

/// Deletes the runtime folders of meshes that were killed, and ends what is left of those.
fn sweep(beside: &Path) {
    let Ok(entries) = fs::read_dir(beside) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        // The lock is held while it is deleted, so that nobody takes the folder meanwhile.
        let Ok(folder) = fs::File::open(&path) else { continue };
        if folder.try_lock().is_err() {
            continue;
        }
        orphans::end(&path);
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::debug!(%error, path = %path.display(), "was left behind by a mesh that was killed, and stays");
        }
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
        assert!(is_held(&path));
        drop(runtime);
        assert!(!path.exists() && !is_held(&path));
    }

    #[test]
    fn what_a_killed_mesh_left_is_swept_and_what_runs_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let running = RuntimeDir::create(parent.path()).unwrap();
        let left = parent.path().join("mesh-1-00000000");
        fs::create_dir_all(left.join("west/ca")).unwrap();
        fs::write(parent.path().join("mesh.json"), "{}").unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        assert!(!is_held(&left), "whatever process 1 is");
        let next = RuntimeDir::create(parent.path()).unwrap();
        assert!(!left.exists());
        for stays in [running.path(), next.path()] {
            assert!(stays.is_dir(), "{}", stays.display());
        }
        assert!(parent.path().join("mesh.json").exists() && parent.path().join("other").exists());
    }
}
