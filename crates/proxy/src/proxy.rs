//! A proxy from its start to its end.
//!
//! Invariants: it serves what it knew before its control plane answers; told to stop, it loses nothing that was given to it
//! within its drain time.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use leno_decide::{Tables, WhoAmI};
use leno_identity::{IdentityStore, Trust, TrustBundle, TrustProblem};
use leno_telemetry::{
    AccessLog, AccessLogConfig, AccessLogFormat, AccessLogSink, OtlpConfig, Spans, Telemetry, TelemetryConfig,
};
use leno_xds::{
    Limits, NodeInfo,
    client::ClientState,
    transport::client::{ClientConfig, Ends, run, subscriber},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin,
    bootstrap::{AccessLog as LogTo, Bootstrap, Capture, Role, Roots},
    capture::verify,
    config::{
        control_link::ControlLink,
        demand::Demand,
        enrol::{Enrolment, JoinToken},
        persist::StateDir,
        subscribe::{Subscription, restore},
    },
    core::Core,
    listen::{self, Intake},
    probe,
    readiness::is_ready,
    shared::{Parts, Phase, Shared},
    worker::Worker,
};

/// Records that may wait for the access log's writer.
const LOG_QUEUE: usize = 8192;

/// After the drain's start, calls still come from clients that have not heard of it.
const LEAST_DRAIN: Duration = Duration::from_millis(1500);

/// So long must nothing have been in flight for the drain to be over.
const QUIET: Duration = Duration::from_millis(300);

/// This much of the drain time, a quarter at most, is kept for its end, in which nothing new is taken in.
const CLOSING: Duration = Duration::from_millis(1500);

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(20);

/// What a proxy needs to start.
pub struct ProxyOptions {
    /// What it is told.
    pub bootstrap: Bootstrap,
    /// Proves who it is; not needed when a valid certificate is in its state directory.
    pub join_token: JoinToken,
    /// Threads for its traffic; it uses the first `bootstrap.cores`.
    pub workers: Vec<Worker>,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The roots are not usable.
    #[error("the bootstrap's roots are not usable")]
    Roots(#[source] TrustProblem),
    /// The roots' file cannot be read.
    #[error("{} cannot be read", .path.display())]
    RootsFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state directory cannot be made.
    #[error("the state directory cannot be used")]
    State(#[source] io::Error),
    /// The access log cannot be opened.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] leno_telemetry::access_log::AccessLogError),
    /// The collector's address is not usable.
    #[error("the trace collector's address is not usable")]
    Tracing(#[source] leno_telemetry::otlp::OtlpError),
    /// The admin port cannot be listened on.
    #[error("the admin port cannot be listened on")]
    Admin(#[source] io::Error),
    /// No thread takes its traffic.
    #[error("no traffic thread accepts the proxy")]
    NoWorker,
}

/// A running proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Proxy {
    /// Starts a proxy. Must be called on a tokio runtime that goes on; traffic runs on the workers.
    ///
    /// # Errors
    /// When the bootstrap cannot be followed.
    pub async fn start(options: ProxyOptions) -> Result<Self, StartError> {
        let ProxyOptions { bootstrap, join_token, workers } = options;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let state = match &bootstrap.state_dir {
            None => None,
            Some(path) => Some(Arc::new(StateDir::open(path).map_err(StartError::State)?)),
        };
        let identity = identity(&bootstrap, state.as_deref())?;
        let telemetry = telemetry(&bootstrap, &tasks, &stop)?;
        let kept = state.as_ref().and_then(|state| state.load_snapshot());
        let (scopes, resources) = kept.map_or_else(Default::default, |kept| (kept.scopes, kept.resources));
        let empty = Tables::new(WhoAmI::new(bootstrap.workload.clone()));
        let (tables, versions) = restore(&empty, &scopes, &resources);

        let link = Arc::new(ControlLink::new(
            bootstrap.control.clone(),
            bootstrap.control_identity.clone(),
            &identity,
        ));
        let node = NodeInfo {
            id: bootstrap.uid.clone(),
            workload: bootstrap.workload.to_string().into(),
            cluster: bootstrap.cluster.shared(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: leno_wire::KNOWN_FEATURES.iter().map(|feature| (*feature).into()).collect(),
        };
        let state_machine = ClientState::new(Limits::default(), node, versions);
        let (runner, Ends { subscriber, landings, .. }) = subscriber(state_machine, ClientConfig::default());
        let demand = Arc::new(Demand::new(subscriber, bootstrap.workload.namespace.clone()));
        let (problem, enrolment) = watch::channel(None);
        let shared = Shared::new(Parts { bootstrap, identity, tables, demand, telemetry, enrolment });

        admin::start(&shared, &tasks, &stop).map_err(StartError::Admin)?;
        let far = probe::listen(&tasks, &stop).await.map_err(StartError::Admin)?;
        let enrolment = Enrolment {
            link: link.clone(),
            store: shared.identity.clone(),
            trust_domain: shared.bootstrap.trust_domain.clone(),
            ttl: shared.bootstrap.certificate_ttl,
            join_token,
            roots: shared.bootstrap.roots.clone(),
            problem,
            state: state.clone(),
        };
        tasks.spawn(enrolment.run(stop.clone()));
        let discovery = stop.clone();
        let store = shared.identity.clone();
        tasks.spawn(async move {
            let dial = move || {
                let (link, store) = (link.clone(), store.clone());
                async move {
                    // Discovery is for those who can prove who they are.
                    while store.certificate().is_none() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    link.dial().await
                }
            };
            tokio::select! {
                () = discovery.cancelled() => {}
                _ = run(runner, dial) => {}
            }
        });
        let held = resources.into_iter().map(|resource| (resource.key(), resource)).collect();
        let subscription = Subscription { shared: shared.clone(), state, held };
        tasks.spawn(subscription.run(landings, stop.clone()));
        shared.demand.prefetch(scopes);

        let mut started = false;
        let workers: Vec<Worker> = workers.into_iter().take(shared.bootstrap.cores.max(1)).collect();
        for (worker, intake) in workers.iter().zip(Intake::for_cores(workers.len())) {
            let shared = shared.clone();
            started |= worker.spawn(move || listen::run(Core::new(shared), intake, far));
        }
        if !started {
            stop.cancel();
            return Err(StartError::NoWorker);
        }
        tasks.spawn(verify::run(shared.clone(), stop.clone()));
        Ok(Self { shared, stop, tasks })
    }

    /// Waits until it has its certificate and its own configuration, and listens.
    pub async fn ready(&self) {
        let mut changed = self.shared.changed.subscribe();
        while !is_ready(&self.shared) {
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Where it listens, by the port that clients think of.
    pub fn listening(&self) -> BTreeMap<u16, SocketAddr> {
        self.shared.listening.lock().clone()
    }

    /// Finishes what it has, then ends; at the latest when the drain time is over.
    pub async fn stop(self) {
        let time = self.shared.bootstrap.drain.duration();
        let end = Instant::now() + time;
        drain(&self.shared, time.saturating_sub(CLOSING.min(time / 4))).await;
        close(&self.shared, end).await;
        self.shared.phase.send_replace(Phase::Stopped);
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends at once, as if its process had been killed.
    pub fn kill(self) {
        self.shared.phase.send_replace(Phase::Stopped);
        self.stop.cancel();
    }
}

/// Asks connections to end and waits until nothing is in flight, or the time is over. Who has not heard of it is served.
async fn drain(shared: &Shared, time: Duration) {
    shared.reach(Phase::Draining);
    let began = Instant::now();
    let mut quiet_since = began;
    while began.elapsed() < time {
        if shared.in_flight.load(Relaxed) > 0 {
            quiet_since = Instant::now();
        } else if began.elapsed() >= least_drain(&shared.bootstrap).min(time)
            && quiet_since.elapsed() >= QUIET
        {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How long it serves who comes, once it is told to stop, though nothing is in flight.
fn least_drain(bootstrap: &Bootstrap) -> Duration {
    match (bootstrap.role, bootstrap.capture) {
        // Load balancers before a gateway ask for its health every few seconds, and send clients until they have seen it.
        (Role::Gateway, Capture::Captured) => bootstrap.drain.duration(),
        (Role::Gateway, Capture::ProxyProtocol) | (Role::Sidecar, _) => LEAST_DRAIN,
    }
}

/// Takes nothing new in, so that nothing can come between the last look and the end, and waits for what is there.
async fn close(shared: &Shared, end: Instant) {
    shared.reach(Phase::Closing);
    let patience = Instant::now() + CLOSING;
    while shared.open.load(Relaxed) > 0 && Instant::now() < end {
        // What is open and never asks for anything is not waited for.
        if shared.in_flight.load(Relaxed) == 0 && Instant::now() >= patience {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    // The workload's own connections are in flight too.
    while shared.in_flight.load(Relaxed) > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}

fn identity(bootstrap: &Bootstrap, state: Option<&StateDir>) -> Result<Arc<IdentityStore>, StartError> {
    if let Some((certificate, roots)) =
        state.and_then(|state| state.load_certificate(&bootstrap.trust_domain))
    {
        return Ok(IdentityStore::with_certificate(Trust::new([roots]), certificate));
    }
    let pem = match &bootstrap.roots {
        Roots::Pem(pem) => pem.clone(),
        Roots::File { file } => std::fs::read_to_string(file)
            .map_err(|source| StartError::RootsFile { path: file.clone(), source })?,
    };
    let roots = TrustBundle::from_pem(bootstrap.trust_domain.clone(), pem.as_bytes());
    Ok(IdentityStore::new(Trust::new([roots.map_err(StartError::Roots)?])))
}

fn telemetry(
    bootstrap: &Bootstrap,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Arc<Telemetry>, StartError> {
    let mut config = TelemetryConfig::default();
    let log = match &bootstrap.access_log {
        LogTo::Off => None,
        LogTo::Text => Some((AccessLogFormat::Text, AccessLogSink::Stdout)),
        LogTo::Json => Some((AccessLogFormat::Json, AccessLogSink::Stdout)),
        LogTo::File(path) => Some((AccessLogFormat::Json, AccessLogSink::File(path.clone()))),
    };
    if let Some((format, sink)) = log {
        let (log, writer) = AccessLog::open(AccessLogConfig { format, sink, queue: LOG_QUEUE })
            .map_err(StartError::AccessLog)?;
        config.access_log = Some(log);
        tasks.spawn(writer.run(stop.clone().cancelled_owned()));
    }
    if let Some(tracing) = &bootstrap.tracing {
        let service = format!("{}.{}", bootstrap.workload.name, bootstrap.workload.namespace);
        let (spans, exporter) = Spans::exporter(OtlpConfig::new(tracing.endpoint.clone(), service))
            .map_err(StartError::Tracing)?;
        config.spans = Some(spans);
        tasks.spawn(exporter.run(stop.clone().cancelled_owned()));
    }
    Ok(Telemetry::new(config))
}
