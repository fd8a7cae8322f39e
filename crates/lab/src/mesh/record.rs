//! How a running mesh describes itself, for the other commands: `mesh.json`.
//!
//! Invariant: the file is whole whenever it is there (it is replaced, never written in place), and it is gone when the mesh is.
//! Must not know: how a mesh is run.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use leno_model::WorkloadId;
use serde::{Deserialize, Serialize};

use super::runtime_dir;

/// The version of the file's form.
pub const VERSION: u32 = 1;

/// A running mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshRecord {
    /// The form of this file.
    pub version: u32,
    /// The process that runs it.
    pub pid: u32,
    /// Where the supervisor takes `leno run`.
    pub supervisor: PathBuf,
    /// Its clusters.
    pub clusters: Vec<ClusterRecord>,
}

/// A running cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its name.
    pub name: String,
    /// The control plane's JSON API.
    pub api: SocketAddr,
    /// The control plane's discovery.
    pub control: SocketAddr,
    /// Its gateways.
    pub gateways: Vec<GatewayRecord>,
    /// Its workloads.
    pub workloads: Vec<WorkloadRecord>,
}

/// A gateway and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// The workload that serves it.
    pub id: WorkloadId,
    /// The object, as `Gateway default/name`.
    pub object: String,
    /// Its proxy's admin address.
    pub admin: SocketAddr,
    /// Its listeners.
    pub listeners: Vec<ListenerRecord>,
    /// Whether its proxy is ready.
    pub ready: bool,
}

/// A listener of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRecord {
    /// Its name.
    pub name: String,
    /// The port of the manifest.
    pub port: u16,
    /// `http`, `https`, `tls`, `tcp` or `mesh`.
    pub protocol: String,
    /// The hosts that it serves.
    pub host: String,
    /// Where it really listens.
    pub address: SocketAddr,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// Its name.
    pub id: WorkloadId,
    /// The Deployment or the like that it is of.
    pub owner: String,
    /// Its proxy's address; its application's without a proxy.
    pub address: IpAddr,
    /// Its application's address.
    pub app_address: IpAddr,
    /// Its proxy's admin address.
    pub admin: Option<SocketAddr>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is going.
    pub terminating: bool,
}

impl MeshRecord {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not there, or is not ours.
    pub fn read(path: &Path) -> io::Result<Self> {
        let record: Self = serde_json::from_slice(&fs::read(path)?)?;
        if record.version != VERSION {
            let message = format!("{} is of version {}, not {VERSION}", path.display(), record.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(record)
    }

    /// Whether the mesh runs that it describes, and was not killed.
    pub fn is_running(&self) -> bool {
        self.supervisor.parent().is_some_and(runtime_dir::is_held)
    }
}

impl ListenerRecord {
    /// A URL for clients, or an address where there is no URL.
    pub fn url(&self) -> String {
        match self.protocol.as_str() {
            "http" | "https" => format!("{}://{}", self.protocol, self.address),
            _ => self.address.to_string(),
        }
    }
}

/// Where a mesh describes itself: `$LENO_MESH`, else in `$XDG_RUNTIME_DIR/leno`, else in `/tmp/leno-UID`.
pub fn record_path() -> PathBuf {
    if let Some(path) = std::env::var_os("LENO_MESH").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(runtime) => PathBuf::from(runtime).join("leno"),
        None => PathBuf::from(format!("/tmp/leno-{}", rustix::process::getuid().as_raw())),
    };
    folder.join("mesh.json")
}
