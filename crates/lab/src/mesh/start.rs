//! The start of a mesh, step by step.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
};

use leno_control::{
    ControlConfig,
    config::{Lifetimes, PeerConfig, REFERENCE_PATIENCE, Settings},
};
use leno_model::{ClusterName, NetworkName, TrustDomain};
use leno_proxy::Workers;
use leno_sources::{FileSource, SourceError};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Mesh, RunningCluster, adoption,
    child::{Binaries, MissingBinary},
    cluster::{Cluster, Command, Inputs, Parts},
    control_plane::{ControlPlane, ControlProblem},
    gateways::{self, EAST_WEST_PORT},
    names, overlay,
    plan::{ClusterPlan, MeshPlan},
    record::{MeshRecord, VERSION, record_path},
    recorder::{self, RecordFile},
    runtime_dir::{self, RuntimeDir},
    shared::{self, Shared},
    tokens::Tokens,
    trust::{self, TrustError},
};
use crate::{
    embedded::{Addresses, Block, BlockError, MAX_CLUSTERS},
    standin::{BehaviourFile, behaviour::BehaviourError},
};

const CONTROL_PORT: u16 = 15012;
const API_PORT: u16 = 15014;
/// Largest manifests on standard input.
const LARGEST_INPUT: u64 = 32 << 20;
/// Commands that may wait for a cluster.
const COMMANDS: usize = 64;

/// Why a mesh does not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// There are none, or too many.
    #[error("a mesh has 1 to {MAX_CLUSTERS} clusters")]
    Clusters,
    /// Two of one name.
    #[error("two clusters are called {0}")]
    SameName(String),
    /// No addresses.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Files of the mesh.
    #[error("{} cannot be used", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Manifests.
    #[error("the manifests of the cluster {cluster} cannot be read")]
    Source {
        /// Which cluster.
        cluster: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// The file of behaviours.
    #[error("{}: {source}", path.display())]
    Behaviour {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BehaviourError,
    },
    /// The certificate authority.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A binary is missing.
    #[error(transparent)]
    Binary(#[from] MissingBinary),
    /// No threads.
    #[error("no thread can be started")]
    Threads(#[source] io::Error),
    /// A control plane.
    #[error(transparent)]
    Control(#[from] ControlProblem),
}

/// Starts a mesh.
pub(super) async fn start(plan: MeshPlan) -> Result<Mesh, MeshError> {
    check(&plan)?;
    let record_file = plan.record.clone().unwrap_or_else(record_path);
    let folder = record_file.parent().map(Path::to_owned).unwrap_or_default();
    let runtime = RuntimeDir::create(&folder).map_err(files(&folder))?;
    let recorder = RecordFile::take(&record_file).map_err(files(&record_file))?;
    let block = Arc::new(Block::take()?);
    let clusters: Vec<(ClusterPlan, PathBuf)> =
        plan.clusters.iter().map(|cluster| (cluster.clone(), runtime.path().join(&cluster.name))).collect();
    let shared = shared(&plan, &clusters, &block)?;

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let supervisor = runtime.path().join("supervisor.sock");
    let (mut running, mut records, mut starting) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..clusters.len() {
        let (mut cluster, names) = cluster(index, &clusters, &block, &shared)?;
        records.push(cluster.record());
        let name = clusters[index].0.name.clone();
        let (commands, inputs) = inputs(&mut cluster, &tasks, &stop);
        running.push(RunningCluster { name, commands, names });
        starting.push(async move { cluster.start_control().await.map(|()| (cluster, inputs)) });
    }
    for started in futures_util::future::join_all(starting).await {
        let (cluster, inputs) = started?;
        tasks.spawn(cluster.run(inputs));
    }
    let doors = running.iter().map(|cluster| (cluster.name.clone(), cluster.commands.clone())).collect();
    let listening = adoption::listen(&supervisor, doors, stop.clone()).map_err(files(&supervisor))?;
    tasks.spawn(listening);
    let record = MeshRecord {
        version: VERSION,
        pid: std::process::id(),
        supervisor,
        clusters: records.iter().map(|cluster| cluster.borrow().clone()).collect(),
    };
    let (sender, record) = watch::channel(record);
    tasks.spawn(recorder::keep(record_file, sender, records, stop.clone()));
    let workers = Some(shared.workers.clone());
    drop(shared);
    Ok(Mesh { clusters: running, record, stop, tasks, workers, _recorder: recorder, _runtime: runtime })
}

fn check(plan: &MeshPlan) -> Result<(), MeshError> {
    if plan.clusters.is_empty() || plan.clusters.len() > MAX_CLUSTERS {
        return Err(MeshError::Clusters);
    }
    let mut names = BTreeSet::new();
    match plan.clusters.iter().find(|cluster| !names.insert(&cluster.name)) {
        Some(twice) => Err(MeshError::SameName(twice.name.clone())),
        None => Ok(()),
    }
}

fn shared(
    plan: &MeshPlan,
    clusters: &[(ClusterPlan, PathBuf)],
    block: &Block,
) -> Result<Arc<Shared>, MeshError> {
    let trust_domain = TrustDomain::default();
    for (_, folder) in clusters {
        for part in ["ca", "overlay", "state", "proxies"] {
            let path = folder.join(part);
            runtime_dir::private(&path).map_err(files(&path))?;
        }
    }
    let authorities: Vec<PathBuf> = clusters.iter().map(|(_, folder)| folder.join("ca")).collect();
    let places =
        clusters.iter().zip(&authorities).map(|((plan, _), folder)| (plan.name.as_str(), folder.as_path()));
    let roots = trust::make(&trust_domain, places)?;
    let behaviours = match &plan.app_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(files(path))?;
            let file = BehaviourFile::parse(&text);
            let file = file.map_err(|source| MeshError::Behaviour { path: path.clone(), source })?;
            Some(Arc::new(file))
        }
    };
    let bundled = |source| MeshError::Behaviour { path: "(bundled)".into(), source };
    Ok(Arc::new(Shared {
        trust_domain,
        roots,
        binaries: if plan.processes { Some(Binaries::find()?) } else { None },
        behaviours,
        bookinfo: Arc::new(BehaviourFile::bookinfo().map_err(bundled)?),
        certificate_ttl: plan.certificate_ttl,
        drain: plan.drain,
        access_log: plan.access_log.clone(),
        tracing: plan.tracing.clone(),
        low_port_offset: shared::low_port_offset(block),
        starting: Shared::starting(),
        workers: Workers::start(plan.workers, "traffic").map_err(MeshError::Threads)?,
        next_worker: AtomicUsize::new(0),
    }))
}

/// One cluster, whose control plane does not run yet.
fn cluster(
    index: usize,
    clusters: &[(ClusterPlan, PathBuf)],
    block: &Arc<Block>,
    shared: &Arc<Shared>,
) -> Result<(Cluster, names::Names), MeshError> {
    let (plan, folder) = &clusters[index];
    let mut addresses = Addresses::new(block.clone(), index);
    let mut paths = saved_input(&plan.paths, folder)?;
    let networks: BTreeSet<&str> = clusters.iter().map(|(plan, _)| plan.network.as_str()).collect();
    let mut gateways = Vec::new();
    if networks.len() > 1 {
        let manifests = folder.join("manifests");
        runtime_dir::private(&manifests).map_err(files(&manifests))?;
        let manifest = manifests.join("eastwest.yaml");
        runtime_dir::replace(&manifest, gateways::east_west_manifest().as_bytes())
            .map_err(files(&manifest))?;
        paths.push(manifest);
        gateways.extend(addresses.workload(&gateways::east_west_id()).map(|found| (found.0, EAST_WEST_PORT)));
    }
    let others = clusters.iter().enumerate().filter(|(other, _)| *other != index);
    let peers = others.map(|(other, (plan, _))| PeerConfig {
        cluster: ClusterName::from(plan.name.as_str()),
        addresses: vec![SocketAddr::new(block.control(other), CONTROL_PORT).into()],
    });
    let ttl = shared.certificate_ttl.as_secs().max(1);
    let tokens_file = folder.join("tokens.json");
    let config = ControlConfig {
        cluster: ClusterName::from(plan.name.as_str()),
        region: plan.region.as_str().into(),
        zone: plan.zone.as_str().into(),
        network: NetworkName::from(plan.network.as_str()),
        trust_domain: shared.trust_domain.clone(),
        root_namespace: "leno-system".into(),
        listen: SocketAddr::new(block.control(index), CONTROL_PORT),
        api: SocketAddr::new(block.control(index), API_PORT),
        paths: paths.clone(),
        overlay: Some(overlay::file(folder)),
        kubernetes: None,
        ca_dir: folder.join("ca"),
        tokens: Some(tokens_file.clone()),
        state_dir: Some(folder.join("state")),
        peers: peers.collect(),
        gateways,
        exported: None,
        settings: Settings::default(),
        certificates: Lifetimes {
            shortest_seconds: ttl.min(Lifetimes::default().shortest_seconds),
            ..Lifetimes::default()
        },
        reference_patience: REFERENCE_PATIENCE,
    };
    let (writer, names) = names::names();
    let parts = Parts {
        name: plan.name.clone(),
        folder: folder.clone(),
        shared: shared.clone(),
        addresses,
        source: FileSource::new(paths),
        control: ControlPlane::new(config, folder.clone(), shared.clone()),
        tokens: Arc::new(Tokens::new(tokens_file.clone()).map_err(files(&tokens_file))?),
        writer,
        names: names.clone(),
    };
    let failed = |source| MeshError::Source { cluster: plan.name.clone(), source };
    Ok((Cluster::new(parts).map_err(failed)?, names))
}

/// What a cluster listens to: commands, its files, its control plane's gateways.
fn inputs(
    cluster: &mut Cluster,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> (mpsc::Sender<Command>, Inputs) {
    let (command, commands) = mpsc::channel(COMMANDS);
    let (look, files) = mpsc::channel(1);
    let (seen, gateways) = mpsc::channel(1);
    let (paths, api) = (cluster.paths(), cluster.api());
    let stopped = stop.clone();
    tasks.spawn(async move {
        leno_sources::watch(&paths, stopped, async || {
            // One waiting look says as much as many.
            let _ = look.try_send(());
        })
        .await;
    });
    tasks.spawn(gateways::follow(api, seen, stop.clone()));
    (command, Inputs { commands, files, gateways })
}

/// The paths, with standard input saved to a file, because control planes read it too.
fn saved_input(paths: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>, MeshError> {
    let mut saved = Vec::with_capacity(paths.len());
    for path in paths {
        if path.as_os_str() != "-" {
            // A process of the mesh may run elsewhere.
            saved.push(std::path::absolute(path).map_err(files(path))?);
            continue;
        }
        let manifests = folder.join("input");
        runtime_dir::private(&manifests).map_err(files(&manifests))?;
        let mut text = Vec::new();
        io::stdin().lock().take(LARGEST_INPUT).read_to_end(&mut text).map_err(files(path))?;
        let file = manifests.join("stdin.yaml");
        runtime_dir::replace(&file, &text).map_err(files(&file))?;
        saved.push(file);
    }
    Ok(saved)
}

fn files(path: &Path) -> impl FnOnce(io::Error) -> MeshError {
    move |source| MeshError::Files { path: path.to_owned(), source }
}
