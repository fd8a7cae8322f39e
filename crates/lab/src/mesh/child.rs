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

/// Where the binaries are.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) proxy: PathBuf,
    pub(super) control: PathBuf,
}

/// A binary is missing.
#[derive(Debug, thiserror::Error)]
#[error("{name} is neither in $LENO_BIN_DIR nor beside {}: build it with `cargo build -p {name}-bin`", beside.display())]
pub struct MissingBinary {
    /// Which.
    pub name: &'static str,
    /// Where was looked.
    pub beside: PathBuf,
}

impl Binaries {
    /// Finds them in `$LENO_BIN_DIR` or beside this program.
    pub(super) fn find() -> Result<Self, MissingBinary> {
        Ok(Self { proxy: find("leno-proxy")?, control: find("leno-control")? })
    }
}

fn find(name: &'static str) -> Result<PathBuf, MissingBinary> {
    let given = env::var_os("LENO_BIN_DIR").map(PathBuf::from);
    let own = env::current_exe().unwrap_or_default();
    // Tests run in `deps`, one below the binaries.
    let beside = own.parent().map(Path::to_owned).unwrap_or_default();
    let above = beside.parent().map(Path::to_owned).unwrap_or_default();
    let mut places = given.into_iter().chain([beside.clone(), above]);
    let found = places.find_map(|place| Some(place.join(name)).filter(|path| path.is_file()));
    found.ok_or(MissingBinary { name, beside })
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
