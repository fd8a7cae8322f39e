//! The programs of other people, and where their files are.
//!
//! Invariant: a program that is not installed fails the test, with the command that installs it; nothing is skipped.

use std::{
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// No program of these tests needs longer.
const LONGEST: Duration = Duration::from_secs(120);

/// The path of a program.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: `make tools` installs it (tools/debian.txt)"))
}

/// The Python that has `module`.
pub(crate) fn python_with(module: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = [root.join(".venv/bin")];
    let folders = own.into_iter().chain(std::env::split_paths(&path));
    let mut pythons = folders.map(|folder| folder.join("python3")).filter(|path| path.is_file());
    let has = |python: &PathBuf| {
        let mut looking = Command::new(python);
        looking.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
        looking.status().is_ok_and(|status| status.success())
    };
    pythons.find(has).unwrap_or_else(|| {
        panic!("no Python has {module}: `make tools` installs it into .venv (tools/requirements.txt)")
    })
}

/// Runs a command to its end, within bounds; its output is in the message when it fails.
pub(crate) fn succeeds(command: &mut Command) -> Output {
    let output = ends(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, shown(&output));
    output
}

/// Runs a command to its end, however that is.
pub(crate) fn ends(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{command:?} did not end in {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: out.join().unwrap().unwrap(), stderr: err.join().unwrap().unwrap() }
}

/// What a program said.
pub(crate) fn shown(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("standard output:\n{out}\nstandard error:\n{err}")
}

/// A text that a program wrote to its standard output.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program in the background; ended with its test.
pub(crate) struct Background(pub(crate) Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = command.spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // TERM, so that a program that started others ends them; KILL for one that does not listen.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of 127.0.0.1 that was free a moment ago, for programs that cannot be told port 0.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for something, with patience.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
