//! `leno up --processes` on `peers.yaml`, and the client's place in it, for programs.
//!
//! Must not know: what the programs are.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use leno_lab::mesh::{ClusterRecord, MeshRecord, record::WorkloadRecord};
use serde_json::Value;

use crate::programs::{self, Background, eventually, succeeds};

const MANIFESTS: &str = include_str!("peers.yaml");
/// The name in the gateway's certificate.
pub(crate) const HOST: &str = "peers.example";

/// A running mesh; everything of it ends with its test.
pub(crate) struct Peers {
    up: Child,
    folder: tempfile::TempDir,
    record: PathBuf,
    /// Questions to the stand-in, which counts them too.
    asked: Cell<u64>,
}

/// The client's place, taken: where programs dial what `peers.yaml` names.
pub(crate) struct Place {
    _run: Background,
    environment: BTreeMap<String, String>,
}

impl Peers {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("peers.yaml"), MANIFESTS).unwrap();
        fs::write(manifests.join("secret.yaml"), certificate(folder.path())).unwrap();
        let record = folder.path().join("runtime/mesh.json");
        let mut up = Command::new(leno())
            .args(["up", "--processes", "--drain", "1s", "-f"])
            .arg(&manifests)
            .args(arguments)
            .env("LENO_MESH", &record)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
        // From here on the mesh is ended with this, also when it does not become ready.
        let peers = Self { up, folder, record, asked: Cell::new(0) };
        let ready = lines.any(|line| line.unwrap().starts_with("ready"));
        assert!(ready, "leno up did not become ready; what it said on standard error is above");
        // Whoever reads a pipe must go on reading it.
        std::thread::spawn(move || lines.for_each(drop));
        eventually("the gateway serves", || {
            let gateways = peers.cluster().gateways;
            gateways.first().filter(|gateway| gateway.ready && gateway.listeners.len() == 2).map(|_| ())
        });
        peers
    }

    pub(crate) fn cluster(&self) -> ClusterRecord {
        MeshRecord::read(&self.record).unwrap().clusters.remove(0)
    }

    pub(crate) fn workload(&self, name: &str) -> WorkloadRecord {
        let workloads = self.cluster().workloads;
        workloads.into_iter().find(|workload| workload.owner == name).unwrap()
    }

    /// Where a listener of the gateway really listens.
    pub(crate) fn edge(&self, listener: &str) -> SocketAddr {
        let gateway = self.cluster().gateways.remove(0);
        gateway.listeners.iter().find(|found| found.name == listener).unwrap().address
    }

    /// Requests that the stand-in of a workload answered, questions like this one apart.
    pub(crate) fn answered(&self, workload: &str) -> u64 {
        let counters = json_of(SocketAddr::new(self.workload(workload).app_address, 8080), "/leno/counters");
        let asked = self.asked.replace(self.asked.get() + 1);
        counters["requests"].as_u64().unwrap() - asked
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The gateway's certificate, which signs itself.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("peers.crt")
    }

    /// A service's virtual address.
    pub(crate) fn service(&self, name: &str) -> IpAddr {
        let services: Value = json_of(self.cluster().api, "/v1/services");
        let found = services["services"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
        found["addresses"][0].as_str().unwrap().parse().unwrap()
    }

    /// The process of a workload's or gateway's proxy.
    pub(crate) fn proxy_pid(&self, workload: &str) -> u32 {
        let needle = format!("{}/", self.folder.path().join("runtime").display());
        let named = format!("proxies/peers_{workload}-");
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let found = processes.filter_map(|entry| {
            let line = String::from_utf8(fs::read(entry.path().join("cmdline")).ok()?).ok()?;
            let ours = line.contains(&needle) && line.contains(&named);
            if ours { entry.file_name().to_string_lossy().parse().ok() } else { None }
        });
        let found: Vec<u32> = found.collect();
        assert_eq!(found.len(), 1, "the proxy of {workload}: {found:?}");
        found[0]
    }

    /// What a proxy wrote to its standard output and error.
    pub(crate) fn log(&self, workload: &str) -> String {
        let named = format!("peers_{workload}-");
        let files = walk(&self.folder.path().join("runtime"));
        let file = files.into_iter().find(|path| {
            path.file_name().is_some_and(|name| name == "log") && path.display().to_string().contains(&named)
        });
        fs::read_to_string(file.unwrap_or_else(|| panic!("{workload} has no log"))).unwrap()
    }

    /// Takes the place of the client, for as long as the answer lives.
    pub(crate) fn client(&self) -> Place {
        self.place("client")
    }

    fn place(&self, workload: &str) -> Place {
        let mut command = Command::new(leno());
        command
            .args(["run", "--workload", &format!("peers/{workload}"), "--"])
            .args(["sh", "-c", "env; echo taken; exec cat"])
            .env("LENO_MESH", &self.record)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut run = Background::start(&mut command);
        let mut lines = BufReader::new(run.0.stdout.take().unwrap()).lines();
        let mut environment = BTreeMap::new();
        for line in lines.by_ref().map(Result::unwrap).take_while(|line| line != "taken") {
            if let Some((name, value)) = line.split_once('=') {
                environment.insert(name.to_owned(), value.to_owned());
            }
        }
        assert!(environment.contains_key("LENO_APP_ADDRESS"), "the place of {workload} could not be taken");
        Place { _run: run, environment }
    }

    /// Runs a server of a test in a workload's place, until it is dropped; `{address}` and `{port}` in its arguments are where
    /// it should listen.
    pub(crate) fn serve(&self, workload: &str, port: u16, program: &Path, arguments: &[&str]) -> Background {
        let address = self.workload(workload).app_address.to_string();
        let filled = arguments
            .iter()
            .map(|text| text.replace("{address}", &address).replace("{port}", &port.to_string()));
        let mut command = Command::new(leno());
        command
            .args(["run", "--workload", &format!("peers/{workload}"), "--"])
            // The stand-in's port is closed before the program begins, so what answers after this word is the program.
            .args(["sh", "-c", "echo begins; exec \"$0\" \"$@\""])
            .arg(program)
            .args(filled)
            .env("LENO_MESH", &self.record)
            .stdout(Stdio::piped());
        let mut server = Background::start(&mut command);
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "begins", "the place of {workload} could not be taken");
        std::thread::spawn(move || lines.for_each(drop));
        eventually("the server listens", || TcpStream::connect((address.as_str(), port)).ok());
        server
    }
}

impl Place {
    /// The address at which a service of the environment is reached through the proxy.
    pub(crate) fn address(&self, variable: &str) -> SocketAddr {
        let value = &self.environment[variable];
        value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no address here"))
    }

    /// `http://...` of the same.
    pub(crate) fn url(&self, variable: &str, path: &str) -> String {
        format!("http://{}{path}", self.address(variable))
    }

    /// The proxy for clients that name hosts.
    pub(crate) fn http_proxy(&self) -> &str {
        &self.environment["HTTP_PROXY"]
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.up.id().to_string()]).status();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < deadline {
            if !matches!(self.up.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

fn leno() -> PathBuf {
    let given = std::env::var_os("LENO_BIN_DIR").map(PathBuf::from);
    let beside = std::env::current_exe().unwrap().ancestors().nth(2).map(Path::to_owned);
    let mut places = given.into_iter().chain(beside).map(|folder| folder.join("leno"));
    places.find(|path| path.is_file()).expect(
        "leno is not in $LENO_BIN_DIR: `cargo build --profile quick -p leno -p leno-proxy-bin -p leno-control-bin` builds it",
    )
}

/// Makes a certificate for [`HOST`] in the folder, and the Secret that holds it.
fn certificate(folder: &Path) -> String {
    let (certificate, key) = (folder.join("peers.crt"), folder.join("peers.key"));
    succeeds(
        Command::new(programs::program("openssl"))
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=peers", "-addext", &format!("subjectAltName=DNS:{HOST}")])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    );
    let text = |path: &Path| serde_json::to_string(&fs::read_to_string(path).unwrap()).unwrap();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: peers-example, namespace: peers}}\ntype: kubernetes.io/tls\n\
         stringData:\n  tls.crt: {}\n  tls.key: {}\n",
        text(&certificate),
        text(&key)
    )
}

/// The files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let below = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { walk(&path) } else { vec![path] }
    });
    below.collect()
}

/// GETs a page of a proxy, a stand-in or Prometheus, without the mesh.
pub(crate) fn page(address: SocketAddr, path: &str) -> String {
    page_if_any(address, path).unwrap_or_else(|| panic!("{address}{path} does not answer 200"))
}

/// The same; `None` when there is no answer, or another than 200.
pub(crate) fn page_if_any(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
}

/// The same as JSON.
pub(crate) fn json_of(address: SocketAddr, path: &str) -> Value {
    let text = page(address, path);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
