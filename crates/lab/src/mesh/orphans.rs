//! Processes of a mesh that was killed: proxies and control planes that nobody told to end, and that hold its addresses.
//!
//! Invariant: only our own programs are ended, and only those whose files are in the given folder, of a mesh that does not run.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path, thread::sleep, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::child::{CONTROL, PROXY};

/// How long they may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Ends those that were started with files of this folder, and waits until they are gone.
pub(super) fn end(folder: &Path) {
    let killed = started_with(folder);
    for process in &killed {
        // It may have ended meanwhile.
        let _ = kill_process(*process, Signal::KILL);
    }
    let deadline = Instant::now() + PATIENCE;
    while !killed.iter().all(|process| has_ended(*process)) {
        if Instant::now() > deadline {
            tracing::warn!(folder = %folder.display(), "processes of a mesh that was killed do not end");
            return;
        }
        sleep(LOOK);
    }
}

/// Our processes with such an argument.
fn started_with(folder: &Path) -> Vec<Pid> {
    let ours = |entry: fs::DirEntry| {
        let process = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut arguments =
            line.split(|byte| *byte == 0).map(|argument| Path::new(OsStr::from_bytes(argument)));
        let program = arguments.next()?.file_name()?;
        let of_folder =
            (program == PROXY || program == CONTROL) && arguments.any(|it| it.starts_with(folder));
        of_folder.then_some(process)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(ours).collect()
}

/// Whether it holds nothing any more; somebody may have to wait for it yet.
fn has_ended(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    // `PID (NAME) STATE ...`, where the name may have anything in it.
    let state = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    stat.ok().and_then(state).is_none_or(|state| matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command};

    use super::*;

    #[test]
    fn our_processes_of_a_folder_are_ended_and_nobody_else_s() {
        let (killed, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let start = |name: &str, folder: &Path| {
            let log = folder.join("log");
            fs::write(&log, "").unwrap();
            Command::new("tail").arg0(name).arg("-f").arg(log).spawn().unwrap()
        };
        let mut orphan = start("/usr/bin/leno-proxy", killed.path());
        let mut others = [start("tail", killed.path()), start("leno-proxy", other.path())];
        end(killed.path());
        assert!(orphan.try_wait().unwrap().is_some());
        for process in &mut others {
            assert!(process.try_wait().unwrap().is_none());
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}
