//! Processes of the mesh: control planes and proxies that run apart.
//!
//! Invariants: a child ends with the mesh (it is killed when dropped); what it says goes to a file of its own.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How long a process may take to read what is written to it.
const HAND_OVER: Duration = Duration::from_secs(5);

/// The programs.
pub(super) const PROXY: &str = "leno-proxy";
pub(super) const CONTROL: &str = "leno-control";

/// Where the binaries are.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) proxy: PathBuf,
    pub(super) control: PathBuf,
}

/// What a mesh of processes is made of is missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} not in {}: `cargo build --profile {} -p leno-proxy-bin -p leno-control-bin` builds both there; LENO_BIN_DIR names another folder",
    absent(missing),
    listed(looked_in),
    profile(looked_in)
)]
pub struct MissingBinary {
    /// Which programs.
    pub missing: Vec<&'static str>,
    /// The folders in which they were looked for: that of this program first, unless `$LENO_BIN_DIR` names one.
    pub looked_in: Vec<PathBuf>,
}

impl Binaries {
    /// Finds them in `$LENO_BIN_DIR`, beside this program or one folder above it.
    pub(super) fn find() -> Result<Self, MissingBinary> {
        let given = env::var_os("LENO_BIN_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let own = env::current_exe().unwrap_or_default();
        let beside = own.parent().map(Path::to_owned).unwrap_or_default();
        // Tests run in `deps`, one below the binaries.
        let above = beside.parent().filter(|_| beside.ends_with("deps")).map(Path::to_owned);
        Self::within(given.into_iter().chain([beside]).chain(above).collect())
    }

    fn within(folders: Vec<PathBuf>) -> Result<Self, MissingBinary> {
        let find = |name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        match (find(PROXY), find(CONTROL)) {
            (Some(proxy), Some(control)) => Ok(Self { proxy, control }),
            (proxy, control) => {
                let missing = [(PROXY, proxy), (CONTROL, control)].into_iter();
                let missing = missing.filter(|(_, found)| found.is_none()).map(|(name, _)| name).collect();
                Err(MissingBinary { missing, looked_in: folders })
            }
        }
    }
}

fn absent(programs: &[&str]) -> String {
    format!("{} {}", programs.join(" and "), if programs.len() == 1 { "is" } else { "are" })
}

fn listed(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// The profile that builds into one of the folders: Cargo names the folder after it, except for `dev`.
fn profile(folders: &[PathBuf]) -> &str {
    let mut built = folders.iter().filter(|folder| folder.parent().is_some_and(|it| it.ends_with("target")));
    match built.next().and_then(|folder| folder.file_name()?.to_str()) {
        None => "quick",
        Some("debug") => "dev",
        Some(profile) => profile,
    }
}

/// A running process.
#[derive(Debug)]
pub(super) struct Child {
    child: tokio::process::Child,
}

impl Child {
    /// Starts `binary`; `secret` is written to its standard input, which then ends.
    pub(super) async fn start(
        binary: &Path,
        arguments: &[&std::ffi::OsStr],
        log: &Path,
        secret: &str,
    ) -> io::Result<Self> {
        let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            let written = timeout(HAND_OVER, stdin.write_all(secret.as_bytes())).await;
            // A process that ended already says why in its log; its end is seen by `ended`.
            let _ = written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        }
        Ok(Self { child })
    }

    /// Resolves when it has ended.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end, waits at most `grace`, then ends it.
    pub(super) async fn stop(mut self, grace: Duration) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(grace, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "a process cannot be killed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_where_it_was_looked_for_and_how_it_gets_there() {
        let target = tempfile::tempdir().unwrap();
        let beside = target.path().join("target/quick");
        fs::create_dir_all(&beside).unwrap();
        let said = Binaries::within(vec![beside.clone()]).unwrap_err().to_string();
        for part in [
            "leno-proxy and leno-control are not in",
            &*beside.display().to_string(),
            "`cargo build --profile quick -p leno-proxy-bin -p leno-control-bin`",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        fs::write(beside.join("leno-proxy"), "").unwrap();
        let said = Binaries::within(vec![beside.clone()]).unwrap_err().to_string();
        assert!(said.starts_with("leno-control is not in"), "{said}");
        fs::write(beside.join("leno-control"), "").unwrap();
        assert!(Binaries::within(vec![beside]).is_ok());
    }

    #[test]
    fn the_profile_is_the_one_whose_folder_was_looked_in() {
        let profile = |folder: &str| profile(&[folder.into()]).to_owned();
        assert_eq!(profile("/work/leno/target/debug"), "dev");
        assert_eq!(profile("/work/leno/target/release"), "release");
        assert_eq!(profile("/usr/local/bin"), "quick", "what the guide builds");
    }
}
