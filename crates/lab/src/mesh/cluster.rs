//! The supervisor of one cluster: one task that owns everything about it.
//!
//! ```text
//! files --plan--> wanted --steps--> replicas (tasks)      reports, commands, gateways of the control plane
//!                                      \--> overlay (batched) --> control plane;  record --> mesh.json
//! ```
//!
//! Invariants: a replica is told to go only after the overlay says so; a name's address is given back only after the
//! overlay no longer has it. What cannot be read leaves everything as it is.
//! Must not know: other clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use leno_identity::control_plane_identity;
use leno_model::{ClusterName, Millis, SpiffeId, WorkloadId};
use leno_proxy::bootstrap::{Bootstrap, Capture, OUTBOUND_PORT, Role, Roots};
use leno_sources::{FileSource, SourceError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use super::{
    control_plane::{ControlPlane, ControlProblem},
    describe,
    gateways::GatewaySeen,
    members::{Now, What, steps},
    names::{Names, NamesWriter},
    overlay,
    record::{ClusterRecord, GatewayRecord},
    repaired,
    replica::{Happened, Order, Replica, Report},
    runtime_dir,
    shared::Shared,
    stand_in::{self, real_port},
    tokens::Tokens,
};
use crate::{
    embedded::{Addresses, Planned, PodPlan, PodState, plan},
    standin::Dialer,
};

/// Reports that may wait.
const REPORTS: usize = 1024;
/// Changes of replicas are gathered this long, and longer where the overlay is large.
const GATHER: Duration = Duration::from_millis(20);
const GATHER_PER_POD: Duration = Duration::from_micros(300);

/// What a cluster is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Everything of it ends at once, as in a loss of its region.
    Kill(oneshot::Sender<()>),
    /// Everything of it is started again.
    Restore(oneshot::Sender<Result<(), ControlProblem>>),
    /// Its control plane ends at once.
    KillControl(oneshot::Sender<()>),
    /// Its control plane is started again.
    RestoreControl(oneshot::Sender<Result<(), ControlProblem>>),
    /// The replicas of that name are to go, or to come back. How many there are.
    Hold { name: String, held: bool, done: oneshot::Sender<usize> },
    /// A program of the user takes the place of a stand-in.
    Adopt { name: String, done: oneshot::Sender<Result<Adopted, NoPlace>> },
    /// It ended; the stand-in comes back.
    Return(WorkloadId),
    /// All is drained and ended.
    Stop(oneshot::Sender<()>),
}

/// What a program is told that takes the place of a stand-in.
#[derive(Clone, Debug)]
pub(super) struct Adopted {
    pub(super) plan: PodPlan,
    pub(super) services: Vec<crate::embedded::PlannedService>,
    /// Replicas of the same workload that still have their stand-ins.
    pub(super) stand_ins: usize,
}

/// Why a program gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// No workload has the name.
    Unknown,
    /// So many replicas have it, all of which have a program in their place, or are going.
    Taken(usize),
}

/// What a cluster is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) addresses: Addresses,
    pub(super) source: FileSource,
    pub(super) control: ControlPlane,
    pub(super) tokens: Arc<Tokens>,
    pub(super) writer: NamesWriter,
    pub(super) names: Names,
}

struct Member {
    now: Now,
    life: u64,
    order: watch::Sender<Order>,
    /// Told once the overlay says that it goes.
    going: Option<Order>,
    vacated: Option<oneshot::Sender<Result<Adopted, NoPlace>>>,
}

impl Member {
    fn is_pod_called(&self, name: &str) -> bool {
        matches!(self.now.what, What::Pod(_)) && self.now.what.is_called(name)
    }

    fn has_stand_in(&self) -> bool {
        *self.order.borrow() == Order::Run { stand_in: true }
    }
}

/// See the module.
pub(super) struct Cluster {
    parts: Parts,
    planned: Planned,
    gateways: Vec<GatewaySeen>,
    members: BTreeMap<WorkloadId, Member>,
    held: BTreeSet<String>,
    down: bool,
    stopping: Option<oneshot::Sender<()>>,
    killed: Option<oneshot::Sender<()>>,
    lives: u64,
    /// Names whose addresses are free once the overlay no longer has them.
    released: Vec<WorkloadId>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    overlay_due: Option<Instant>,
    trouble: Trouble,
    record: watch::Sender<ClusterRecord>,
    tasks: TaskTracker,
}

/// What is wrong with the manifests.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Trouble {
    /// Whether a path cannot be read.
    unreadable: bool,
    /// Whether something in what was read last is broken.
    broken: bool,
}

/// What a cluster's task listens to.
pub(super) struct Inputs {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) files: mpsc::Receiver<()>,
    pub(super) gateways: mpsc::Receiver<Vec<GatewaySeen>>,
}

impl Cluster {
    /// Reads the manifests and writes the first overlay; nothing runs yet.
    pub(super) fn new(mut parts: Parts) -> Result<Self, SourceError> {
        let reading = parts.source.read()?.unwrap_or_default();
        let config = parts.control.config();
        let record = ClusterRecord {
            name: parts.name.clone(),
            api: config.api,
            control: config.listen,
            gateways: Vec::new(),
            workloads: Vec::new(),
        };
        let mut cluster = Self {
            planned: Planned::default(),
            gateways: Vec::new(),
            members: BTreeMap::new(),
            held: BTreeSet::new(),
            down: false,
            stopping: None,
            killed: None,
            lives: 0,
            released: Vec::new(),
            reports: mpsc::channel(REPORTS),
            overlay_due: None,
            trouble: Trouble { unreadable: false, broken: overlay::is_broken(&reading) },
            record: watch::Sender::new(record),
            tasks: TaskTracker::new(),
            parts,
        };
        overlay::tell(&cluster.parts.name, &reading, true);
        overlay::tell_of_nothing(&cluster.parts.name, cluster.parts.source.paths(), &reading);
        cluster.planned = plan(reading.objects.values(), &mut cluster.parts.addresses);
        cluster.write_overlay();
        Ok(cluster)
    }

    /// Follows the cluster's state.
    pub(super) fn record(&self) -> watch::Receiver<ClusterRecord> {
        self.record.subscribe()
    }

    /// Where its manifests are.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.parts.source.paths().to_vec()
    }

    /// Where its control plane's API is.
    pub(super) fn api(&self) -> SocketAddr {
        self.parts.control.config().api
    }

    /// Starts its control plane, and waits until it is ready.
    pub(super) async fn start_control(&mut self) -> Result<(), ControlProblem> {
        self.parts.control.start().await
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        self.reconcile();
        loop {
            let overlay_due = self.overlay_due;
            let due = async move {
                match overlay_due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(report) = self.reports.1.recv() => self.reported(report),
                Some(command) = inputs.commands.recv() => self.obey(command).await,
                Some(()) = inputs.files.recv() => self.read_files(),
                Some(seen) = inputs.gateways.recv() => {
                    self.gateways = seen;
                    self.reconcile();
                }
                () = due => self.write_overlay(),
            }
            if self.members.is_empty() {
                if let Some(killed) = self.killed.take() {
                    let _ = killed.send(());
                }
                if let Some(stopped) = self.stopping.take() {
                    self.parts.control.end(false).await;
                    self.tasks.close();
                    self.tasks.wait().await;
                    let _ = stopped.send(());
                    return;
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Kill(done) => {
                self.down = true;
                self.parts.control.end(true).await;
                for member in self.members.values_mut() {
                    member.now.state.terminating = true;
                    member.order.send_replace(Order::Kill);
                }
                self.killed = Some(done);
            }
            Command::Restore(done) => {
                self.down = false;
                self.write_overlay();
                let _ = done.send(self.parts.control.start().await);
                self.reconcile();
            }
            Command::KillControl(done) => {
                self.parts.control.end(true).await;
                let _ = done.send(());
            }
            Command::RestoreControl(done) => {
                let _ = done.send(self.parts.control.start().await);
            }
            Command::Hold { name, held, done } => {
                let called = self
                    .planned
                    .pods
                    .iter()
                    .filter(|plan| What::Pod(Box::new((*plan).clone())).is_called(&name));
                let count = called.count();
                if held {
                    self.held.insert(name);
                } else {
                    self.held.remove(&name);
                }
                self.reconcile();
                let _ = done.send(count);
            }
            Command::Adopt { name, done } => self.adopt(&name, done),
            Command::Return(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    let back = |order: &mut Order| {
                        let away = *order == Order::Run { stand_in: false };
                        if away {
                            *order = Order::Run { stand_in: true };
                        }
                        away
                    };
                    member.order.send_if_modified(back);
                }
            }
            Command::Stop(done) => {
                self.stopping = Some(done);
                self.reconcile();
            }
        }
    }

    fn adopt(&mut self, name: &str, done: oneshot::Sender<Result<Adopted, NoPlace>>) {
        let mut called = self.members.values_mut().filter(|member| member.is_pod_called(name)).peekable();
        if called.peek().is_none() {
            let _ = done.send(Err(NoPlace::Unknown));
            return;
        }
        let mut taken = 0;
        for member in called {
            if member.has_stand_in() {
                member.vacated = Some(done);
                member.order.send_replace(Order::Run { stand_in: false });
                return;
            }
            taken += 1;
        }
        let _ = done.send(Err(NoPlace::Taken(taken)));
    }

    fn read_files(&mut self) {
        let before = self.trouble;
        match self.parts.source.read() {
            Ok(None) => self.trouble.unreadable = false,
            Ok(Some(reading)) => {
                overlay::tell(&self.parts.name, &reading, false);
                self.trouble = Trouble { unreadable: false, broken: overlay::is_broken(&reading) };
                self.planned = plan(reading.objects.values(), &mut self.parts.addresses);
                self.overlay_soon();
                self.reconcile();
            }
            Err(error) => {
                tracing::warn!(cluster = %self.parts.name, error = &error as &dyn std::error::Error, "keeps what it has");
                self.trouble.unreadable = true;
            }
        }
        if before != Trouble::default() && self.trouble == Trouble::default() {
            self.tasks.spawn(repaired::tell(self.parts.name.clone(), self.api()));
        }
    }

    /// Everything that should run.
    fn wanted(&self) -> BTreeMap<WorkloadId, What> {
        if self.down || self.stopping.is_some() {
            return BTreeMap::new();
        }
        let pods = self.planned.pods.iter().map(|plan| (plan.id.clone(), What::Pod(Box::new(plan.clone()))));
        let gateways = self.gateways.iter().filter(|gateway| !gateway.has_pod);
        let gateways = gateways.map(|gateway| (gateway.id.clone(), What::Gateway(gateway.clone())));
        let mut wanted: BTreeMap<_, _> = pods.chain(gateways).collect();
        wanted.retain(|_, what| !self.held.iter().any(|name| what.is_called(name)));
        wanted
    }

    /// Takes the next steps to what should run.
    fn reconcile(&mut self) {
        let mut wanted = self.wanted();
        let now = self.members.iter().map(|(id, member)| (id.clone(), member.now.clone())).collect();
        let steps = steps(&wanted, &now);
        for id in &steps.drain {
            if let Some(member) = self.members.get_mut(id) {
                member.now.state.terminating = true;
                member.going = Some(Order::Drain);
            }
        }
        for id in steps.relabel {
            if let (Some(member), Some(what)) = (self.members.get_mut(&id), wanted.remove(&id)) {
                member.now.what = what;
            }
        }
        for id in steps.start {
            if let Some(what) = wanted.remove(&id) {
                self.start(id, what);
            }
        }
        self.overlay_soon();
    }

    fn start(&mut self, id: WorkloadId, what: What) {
        let Some((proxy, app)) = self.assignment(&what) else {
            tracing::error!(workload = %id, "has no identity or no address is left for it, so it is not started");
            return;
        };
        let folder = self.parts.folder.join("proxies").join(format!("{}_{}", id.namespace, id.name));
        if let Err(error) = runtime_dir::private(&folder.join("state")) {
            tracing::error!(workload = %id, %error, "has no folder, so it is not started");
            return;
        }
        self.lives += 1;
        let (order, orders) = watch::channel(Order::Run { stand_in: true });
        let replica = Replica {
            id: id.clone(),
            life: self.lives,
            shared: self.parts.shared.clone(),
            tokens: self.parts.tokens.clone(),
            folder,
            proxy,
            app,
            reports: self.reports.0.clone(),
        };
        self.tasks.spawn(replica.run(orders));
        let now = Now { what, state: PodState::default() };
        self.members.insert(id, Member { now, life: self.lives, order, going: None, vacated: None });
    }

    /// What a member's proxy and application are started with.
    #[expect(clippy::type_complexity, reason = "the two halves of a replica, taken apart at once")]
    fn assignment(
        &mut self,
        what: &What,
    ) -> Option<(Option<(Bootstrap, SpiffeId)>, Option<(crate::standin::StandInSpec, Dialer)>)> {
        let shared = self.parts.shared.clone();
        match what {
            What::Gateway(gateway) => {
                let bootstrap = self.bootstrap(&gateway.id, Role::Gateway)?;
                Some((Some((bootstrap, gateway.identity.clone())), None))
            }
            What::Pod(plan) => {
                let namespace = plan.id.namespace.as_str();
                let behaviours = shared.behaviours(&self.planned.pods);
                let spec = stand_in::spec(plan, &self.planned.services, &behaviours, shared.low_port_offset);
                let resolver = self.parts.names.resolver(namespace);
                if !plan.has_proxy() {
                    let dialer = Dialer::direct(resolver).from_source(plan.address);
                    return Some((None, Some((spec, dialer))));
                }
                let identity =
                    SpiffeId::workload(&shared.trust_domain, namespace, &plan.service_account).ok()?;
                let mut bootstrap = self.bootstrap(&plan.id, Role::Sidecar)?;
                for port in &plan.ports {
                    let real = real_port(port.port, shared.low_port_offset);
                    if real != port.port {
                        bootstrap.app_ports.insert(port.port, SocketAddr::new(plan.app_address, real));
                    }
                }
                let outbound = SocketAddr::new(plan.address, OUTBOUND_PORT);
                let dialer = Dialer::through_proxy(outbound, resolver).from_source(plan.app_address);
                Some((Some((bootstrap, identity)), Some((spec, dialer))))
            }
        }
    }

    fn bootstrap(&mut self, id: &WorkloadId, role: Role) -> Option<Bootstrap> {
        let shared = &self.parts.shared;
        let (address, app_address) = self.parts.addresses.workload(id)?;
        let folder = self.parts.folder.join("proxies").join(format!("{}_{}", id.namespace, id.name));
        Some(Bootstrap {
            workload: id.clone(),
            uid: format!("{}.{}", id.name, id.namespace).into(),
            role,
            cluster: ClusterName::from(self.parts.name.as_str()),
            trust_domain: shared.trust_domain.clone(),
            control: vec![self.parts.control.config().listen.into()],
            control_identity: control_plane_identity(&shared.trust_domain),
            roots: Roots::Pem(shared.roots.clone()),
            certificate_ttl: Millis::from(shared.certificate_ttl),
            state_dir: Some(folder.join("state")),
            capture: Capture::ProxyProtocol,
            address,
            app_ports: BTreeMap::new(),
            app_address,
            low_port_offset: shared.low_port_offset,
            cores: 1,
            drain: Millis::from(shared.drain),
            allow_unknown: true,
            access_log: shared.access_log.clone(),
            tracing: shared.tracing.clone(),
            probes: BTreeMap::new(),
        })
    }

    fn reported(&mut self, report: Report) {
        let Report { id, life, happened } = report;
        let Some(member) = self.members.get_mut(&id).filter(|member| member.life == life) else { return };
        match happened {
            Happened::Ready => member.now.state.ready = true,
            Happened::Lost => member.now.state.ready = false,
            Happened::Vacated => {
                let (done, what) = (member.vacated.take(), member.now.what.clone());
                if let (Some(done), What::Pod(plan)) = (done, what) {
                    let (services, stand_ins) = (self.planned.services.clone(), self.stand_ins_of(&plan));
                    let _ = done.send(Ok(Adopted { plan: *plan, services, stand_ins }));
                }
            }
            Happened::Gone => {
                self.members.remove(&id);
                let planned = self.planned.pods.iter().any(|plan| plan.id == id);
                if !planned && !self.down {
                    self.released.push(id);
                }
            }
        }
        self.reconcile();
    }

    /// How many replicas of a pod's workload have their stand-ins.
    fn stand_ins_of(&self, plan: &PodPlan) -> usize {
        let workload = format!("{}/{}", plan.id.namespace, plan.owner.1);
        let others = self.members.values().filter(|member| member.is_pod_called(&workload));
        others.filter(|member| member.has_stand_in()).count()
    }

    /// Changes are written together, a moment later.
    fn overlay_soon(&mut self) {
        let pods = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let gather = GATHER + GATHER_PER_POD.saturating_mul(pods);
        self.overlay_due.get_or_insert(Instant::now() + gather);
    }

    /// Writes the overlay, names and record; then those that go are told so.
    fn write_overlay(&mut self) {
        self.overlay_due = None;
        // What should run and does not yet is there, not ready: its proxy needs its configuration to become so.
        let mut pods: BTreeMap<&WorkloadId, (&PodPlan, PodState)> = BTreeMap::new();
        if !self.down && self.stopping.is_none() {
            pods.extend(self.planned.pods.iter().map(|plan| (&plan.id, (plan, PodState::default()))));
            pods.retain(|_, (plan, _)| {
                !self.held.iter().any(|name| What::Pod(Box::new((*plan).clone())).is_called(name))
            });
        }
        for (id, member) in &self.members {
            if let What::Pod(plan) = &member.now.what {
                pods.insert(id, (plan, member.now.state));
            }
        }
        let ready =
            pods.values().filter(|(_, state)| state.ready && !state.terminating).map(|(plan, _)| *plan);
        self.parts.writer.set(&self.planned.services, ready);
        let file = overlay::file(&self.parts.folder);
        if let Err(error) = overlay::write(&file, &self.planned.services, pods.values().copied()) {
            tracing::error!(cluster = %self.parts.name, %error, "the control plane cannot be told of pods");
            self.overlay_due = Some(Instant::now() + Duration::from_secs(1));
            return;
        }
        let (workloads, gateways) = (describe::workloads(pods.values().copied()), self.describe_gateways());
        self.record.send_if_modified(|record| {
            let changed = record.gateways != gateways || record.workloads != workloads;
            (record.gateways, record.workloads) = (gateways, workloads);
            changed
        });
        for id in std::mem::take(&mut self.released) {
            if !self.members.contains_key(&id) {
                self.parts.addresses.release(&id);
            }
        }
        for member in self.members.values_mut() {
            if let Some(order) = member.going.take() {
                member.order.send_replace(order);
            }
        }
    }

    fn describe_gateways(&mut self) -> Vec<GatewayRecord> {
        let offset = self.parts.shared.low_port_offset;
        let mut records = Vec::new();
        for member in self.members.values() {
            if let What::Gateway(gateway) = &member.now.what
                && let Some((address, _)) = self.parts.addresses.workload(&gateway.id)
            {
                records.push(describe::gateway(gateway, address, offset, member.now.state.ready));
            }
        }
        records
    }
}
