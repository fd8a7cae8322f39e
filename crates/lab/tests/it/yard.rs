//! A folder of manifests and the mesh that is made of them.

#![expect(clippy::print_stdout, reason = "a test without its data says so")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use leno_lab::mesh::{ClusterPlan, ClusterRecord, Mesh, MeshPlan, api};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

/// Nothing that is waited for takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SHOP: &str = include_str!("shop.yaml");

pub(crate) struct Yard(tempfile::TempDir);

impl Yard {
    /// With these files, by name and text.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let yard = Self(tempfile::tempdir().unwrap());
        fs::create_dir(yard.manifests()).unwrap();
        files.iter().for_each(|(name, text)| yard.write(name, text));
        yard
    }

    /// With copies of these files.
    pub(crate) fn of(files: &[PathBuf]) -> Self {
        let yard = Self::new(&[]);
        files.iter().for_each(|file| yard.add(file));
        yard
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.0.path().join("manifests")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.manifests().join(name), text).unwrap();
    }

    pub(crate) fn add(&self, file: &Path) {
        fs::write(self.manifests().join(file.file_name().unwrap()), fs::read(file).unwrap()).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.manifests().join(name)).unwrap();
    }

    /// A mesh of clusters with the same manifests, each a region, and a network where there are several.
    pub(crate) async fn start(&self, clusters: &[&str]) -> Mesh {
        self.start_as(clusters, |_| {}).await
    }

    pub(crate) async fn start_as(&self, clusters: &[&str], change: impl FnOnce(&mut MeshPlan)) -> Mesh {
        let cluster = |name: &&str| ClusterPlan {
            region: (*name).to_owned(),
            network: if clusters.len() > 1 { (*name).to_owned() } else { String::new() },
            ..ClusterPlan::new(name, vec![self.manifests()])
        };
        let mut plan = MeshPlan {
            record: Some(self.runtime().join("mesh.json")),
            drain: Duration::from_secs(3),
            ..MeshPlan::new(clusters.iter().map(cluster).collect())
        };
        change(&mut plan);
        let mesh = Mesh::start(plan).await.unwrap();
        mesh.ready(PATIENCE).await.unwrap();
        eventually("the gateways serve", async || {
            let clusters = mesh.record().clusters;
            clusters.iter().all(|it| edge_of(it).is_some())
        })
        .await;
        mesh
    }

    /// Nothing is left on disk of a mesh that was stopped.
    pub(crate) fn is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.runtime()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn runtime(&self) -> PathBuf {
        self.0.path().join("runtime")
    }
}

/// A folder of others' manifests. `LENO_SHARED` names where it is (default: `shared` beside the repository); where it is not,
/// the test says so and passes.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("LENO_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = shared.join("data").join(name);
    if !folder.is_dir() {
        println!("SKIPPED: {} does not exist (set LENO_SHARED)", folder.display());
        return None;
    }
    Some(folder)
}

/// Where the user's gateway of a cluster listens.
pub(crate) fn edge_of(cluster: &ClusterRecord) -> Option<SocketAddr> {
    let users = |object: &str| !object.ends_with("leno-eastwest");
    let gateway = cluster.gateways.iter().find(|it| it.ready && users(&it.object))?;
    gateway.listeners.first().map(|listener| listener.address)
}

/// The same of the first cluster.
pub(crate) fn edge(mesh: &Mesh) -> SocketAddr {
    edge_of(&mesh.record().clusters[0]).expect("a gateway")
}

/// The front page by way of a cluster's gateway; `None` when it is not to be had.
pub(crate) async fn front_page(mesh: &Mesh, cluster: &str) -> Option<Value> {
    let record = mesh.record();
    let cluster = record.clusters.iter().find(|it| it.name == cluster)?;
    api::get_json(edge_of(cluster)?, "/").await.ok()
}

/// A GET on a connection that is open already: the status and the body. The connection stays open. `headers` has the host.
pub(crate) async fn get_on(
    stream: &mut TcpStream,
    path: &str,
    headers: &str,
) -> std::io::Result<(u16, Value)> {
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if answer.len() >= end + 4 + length {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                let body = serde_json::from_slice(&answer[end + 4..]).unwrap_or_default();
                return Ok((status.unwrap_or(0), body));
            }
        }
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
