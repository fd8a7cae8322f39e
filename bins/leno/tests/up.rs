//! `leno up` as users run it, with every control plane and proxy a process of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const SHOP: &str = include_str!("../../../crates/lab/tests/it/shop.yaml");
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_mesh_of_processes_serves_explains_itself_and_leaves_nothing() {
    let mesh = Up::start(&["--processes"]);
    let edge = mesh.edge();
    let answer = get(&edge, "/");
    assert!(answer.contains("\"service\":\"web\""), "{answer}");

    let status = mesh.leno(&["status", "-o", "json"]);
    assert!(status.status.success(), "{status:?}");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["clusters"][0]["rollout"]["expected"], 4, "three workloads and a gateway");

    let explained = mesh.leno(&["explain", "--from", "shop/web", "http://cart/"]);
    assert!(explained.status.success(), "{explained:?}");
    assert!(String::from_utf8_lossy(&explained.stdout).contains("ALLOWED"), "{explained:?}");

    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}}\n";
    fs::write(mesh.folder.path().join("manifests/nobody.yaml"), policy).unwrap();
    let denial = eventually("the policy denies", || {
        let answer = get(&edge, "/");
        let line = answer.lines().find_map(|line| line.strip_prefix("x-leno-denial: "))?;
        Some(line.trim().to_owned())
    });
    let why = mesh.leno(&["why", &denial]);
    assert!(why.status.success(), "{why:?}");

    let proxies = processes(mesh.folder.path());
    assert_eq!(proxies.len(), 5, "four proxies and a control plane: {proxies:?}");
    mesh.stop();
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("mesh.json");
    let broken = folder.path().join("broken.yaml");
    fs::write(&broken, SHOP.replace("replicas: 2", "replicas: many")).unwrap();
    let good = folder.path().join("good.yaml");
    fs::write(&good, SHOP).unwrap();
    let code = |arguments: &[&str]| leno(&record, arguments).status.code();
    assert_eq!(code(&["version"]), Some(0));
    assert_eq!(code(&["analyze", "-f", good.to_str().unwrap()]), Some(0));
    assert_eq!(code(&["analyze", "-f", broken.to_str().unwrap()]), Some(1));
    assert_eq!(code(&["analyze", "-f", "/nowhere"]), Some(2));
    assert_eq!(code(&["status"]), Some(3));
    assert_eq!(code(&["frobnicate"]), Some(2));
}

/// A running `leno up`; killed with its test.
struct Up {
    child: Child,
    folder: tempfile::TempDir,
    record: PathBuf,
}

impl Up {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("shop.yaml"), SHOP).unwrap();
        let record = folder.path().join("runtime/mesh.json");
        let mut child = Command::new(program())
            .arg("up")
            .args(arguments)
            .args(["--drain", "2s", "-f"])
            .arg(&manifests)
            .env("LENO_MESH", &record)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The message names a binary that is missing and how to build it.
        let ready = lines.any(|line| line.unwrap().starts_with("ready"));
        assert!(ready, "leno up did not become ready; what it said on standard error is above");
        // Whoever reads a pipe must go on reading it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, folder, record }
    }

    fn edge(&self) -> String {
        eventually("the gateway serves", || {
            let record: serde_json::Value = serde_json::from_slice(&fs::read(&self.record).ok()?).ok()?;
            let gateway = &record["clusters"][0]["gateways"][0];
            let address = gateway["listeners"][0]["address"].as_str()?;
            (gateway["ready"] == true).then(|| address.to_owned())
        })
    }

    fn leno(&self, arguments: &[&str]) -> Output {
        leno(&self.record, arguments)
    }

    fn stop(mut self) {
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        assert!(self.child.wait().unwrap().success());
        assert!(processes(self.folder.path()).is_empty(), "a process is left");
        assert!(!self.record.exists(), "the record is left");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.child.kill();
        for process in processes(self.folder.path()) {
            let _ = Command::new("kill").arg(process).status();
        }
    }
}

fn program() -> PathBuf {
    let given = std::env::var_os("LENO_BIN_DIR").map(|folder| Path::new(&folder).join("leno"));
    given.filter(|path| path.is_file()).unwrap_or_else(|| env!("CARGO_BIN_EXE_leno").into())
}

fn leno(record: &Path, arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).env("LENO_MESH", record).output().unwrap()
}

/// The processes whose arguments name this mesh's runtime folder.
fn processes(folder: &Path) -> Vec<String> {
    let needle = folder.join("runtime").display().to_string();
    let running = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let named = running.filter(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle))
    });
    named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The whole answer to a GET, head and body.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
