//! `leno` as users run it: the program, a running `leno up`, and clients from outside.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use leno_lab::{
    load::{Handle, Load, Plan, Target},
    mesh::MeshRecord,
    standin::Dialer,
};
use serde_json::Value;

pub(crate) const SHOP: &str = include_str!("../../../../crates/lab/tests/it/shop.yaml");
/// Nothing that is waited for takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `leno up`; killed with its test.
pub(crate) struct Up {
    child: Child,
    pub(crate) folder: tempfile::TempDir,
    record: PathBuf,
    errors: Arc<Mutex<String>>,
}

/// A folder for manifests; what is in it can be named before a mesh is made of it.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

impl Up {
    /// Of one file, `shop.yaml`, in a folder.
    pub(crate) fn of(text: &str, arguments: &[&str]) -> Self {
        let folder = folder(&[("manifests/shop.yaml", text)]);
        let manifests = folder.path().join("manifests").display().to_string();
        Self::start(folder, &[arguments, &["-f", &manifests]].concat(), "")
    }

    /// Of whatever the arguments name, and waits until it is ready.
    pub(crate) fn start(folder: tempfile::TempDir, arguments: &[&str], input: &str) -> Self {
        let record = folder.path().join("runtime/mesh.json");
        let mut child = Command::new(program())
            .arg("up")
            .args(arguments)
            .args(["--drain", "3s"])
            .env("LENO_MESH", &record)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (all, stderr) = (errors.clone(), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let mut all = all.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The message names a binary that is missing and how to build it.
        let ready = lines.any(|line| {
            let line = line.unwrap();
            line.starts_with("ready") || line.starts_with('{')
        });
        assert!(ready, "leno up did not become ready; what it said on standard error is above");
        // Whoever reads a pipe must go on reading it.
        thread::spawn(move || lines.for_each(drop));
        Self { child, folder, record, errors }
    }

    /// What it said on standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join("manifests").join(name), text).unwrap();
    }

    pub(crate) fn record(&self) -> Option<MeshRecord> {
        MeshRecord::read(&self.record).ok()
    }

    /// Where the gateway `shop/edge` of a cluster listens first.
    pub(crate) fn edge_of(&self, cluster: &str) -> SocketAddr {
        eventually("the gateway serves", || {
            let cluster = self.record()?.clusters.into_iter().find(|it| it.name == cluster)?;
            let mut gateways = cluster.gateways.into_iter();
            let gateway = gateways.find(|it| it.ready && it.object == "Gateway shop/edge")?;
            Some(gateway.listeners.first()?.address)
        })
    }

    pub(crate) fn edge(&self) -> SocketAddr {
        self.edge_of("local")
    }

    /// Another command about this mesh.
    pub(crate) fn leno(&self, arguments: &[&str]) -> Output {
        leno(&self.record, arguments)
    }

    /// The same, not waited for.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        Command::new(program()).args(arguments).env("LENO_MESH", &self.record).spawn().unwrap()
    }

    /// What a command that succeeds says in JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.leno(&[arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        json(&output)
    }

    /// The processes of this mesh whose arguments contain `part`, too.
    pub(crate) fn processes(&self, part: &str) -> Vec<String> {
        processes(self.folder.path(), part)
    }

    /// Ends it without a word. Nobody waits for it, so that it stays a zombie until its test ends.
    pub(crate) fn kill(&self) {
        signal("KILL", &self.child.id().to_string());
    }

    pub(crate) fn stop(mut self) {
        signal("INT", &self.child.id().to_string());
        assert!(self.child.wait().unwrap().success());
        assert!(self.processes("").is_empty(), "a process is left");
        assert!(!self.record.exists(), "the record is left");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.child.kill();
        for process in self.processes("") {
            let _ = Command::new("kill").arg(process).status();
        }
    }
}

pub(crate) fn signal(signal: &str, process: &str) {
    let told = Command::new("kill").args([&format!("-{signal}"), process]).status().unwrap();
    assert!(told.success());
}

pub(crate) fn program() -> PathBuf {
    let given = std::env::var_os("LENO_BIN_DIR").map(|folder| Path::new(&folder).join("leno"));
    given.filter(|path| path.is_file()).unwrap_or_else(|| env!("CARGO_BIN_EXE_leno").into())
}

pub(crate) fn leno(record: &Path, arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).env("LENO_MESH", record).output().unwrap()
}

/// `leno` where no mesh runs.
pub(crate) fn alone(arguments: &[&str]) -> Output {
    leno(Path::new("/nowhere/mesh.json"), arguments)
}

/// What was said in JSON on standard output.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The processes whose arguments name this mesh's runtime folder.
fn processes(folder: &Path, part: &str) -> Vec<String> {
    let needle = folder.join("runtime").display().to_string();
    let running = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let named = running.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains(&needle) && line.contains(part)
    });
    named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The whole answer to a GET, head and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The JSON body of the answer to a GET.
pub(crate) fn page(address: SocketAddr, path: &str) -> Value {
    let answer = get(address, path);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// An open loop of GETs against a gateway, which counts answers by the version of the cart that took part.
pub(crate) fn load(edge: SocketAddr, rate: f64) -> Handle {
    let mut target = Target::get(&edge.ip().to_string(), edge.port(), "/");
    target.label = Some(Arc::new(|_: &http::response::Parts, body: &[u8]| {
        let page: Value = serde_json::from_slice(body).ok()?;
        let call = &page["calls"][0];
        // The page is answered even when the call behind it failed: that counts by its name.
        Some(match call["status"].as_str() {
            Some("200") => call["version"].as_str().unwrap_or_default().to_owned(),
            _ => format!("failed: {}", call["error"]),
        })
    }));
    Load::start(Plan::new(rate, vec![target], Dialer::to_addresses())).unwrap()
}

pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
