//! What one proxy has on one core: connections, views of endpoints, a shard of the metrics.
//!
//! Invariant: never leaves its thread; nothing in it is locked or contended.

use std::{
    cell::RefCell,
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use leno_model::{ServiceId, Workload};
use leno_telemetry::{PeerMeta, Shard};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    balance::health::ServiceHealth,
    forward::{pool::Pool, target::Targets},
    http::{ClientSettings, DrainTrigger, ServerSettings},
    preface::Preface,
    shared::Shared,
};

/// Destinations that are remembered to speak HTTP.
const MOST_HTTP_SEEN: usize = 4096;

/// HTTP/2 streams that a client outside the mesh may open and take back at once (Envoy's default).
const MOST_EARLY_RESETS: u64 = 500;

/// So long before its certificate ends a connection gets nothing new.
const BEFORE_EXPIRY: Duration = Duration::from_secs(2);

/// A peer that is gone without a word (its node, its network) is noticed within twice this, and what waits for it fails.
const PEER_PING: Duration = Duration::from_secs(15);

/// See the module.
pub(crate) struct Core {
    /// What all cores share.
    pub(crate) shared: Arc<Shared>,
    /// Connections for reuse.
    pub(crate) pool: Rc<Pool>,
    /// Views of destinations.
    pub(crate) targets: Targets,
    /// This core's metrics.
    pub(crate) shard: Shard,
    /// Asks connections to end.
    pub(crate) drain: DrainTrigger,
    /// Limits of connections from clients.
    pub(crate) server: Rc<ServerSettings>,
    /// The same, from clients that nobody answers for.
    pub(crate) strangers: Rc<ServerSettings>,
    /// Limits of connections to servers.
    pub(crate) client: Rc<ClientSettings>,
    /// The same, to peers in the mesh: these are asked whether they are there. Others may take pings for abuse (gRPC does).
    pub(crate) mesh_client: Rc<ClientSettings>,
    /// What is known of the application.
    pub(crate) app_health: Arc<ServiceHealth>,
    /// Key of the application's connections.
    pub(crate) app_uid: Arc<str>,
    /// The empty handshake name.
    pub(crate) app_name: Arc<str>,
    random: RefCell<SmallRng>,
    me: RefCell<Option<(Arc<Workload>, Me)>>,
    /// Undeclared destinations that were seen to speak HTTP.
    http_seen: RefCell<HashSet<SocketAddr>>,
    /// Services that were called since the last [`Core::report_used`].
    used: RefCell<HashSet<ServiceId>>,
}

/// Who this proxy's workload is, in the forms that are needed often.
#[derive(Clone)]
pub(crate) struct Me {
    /// For telemetry.
    pub(crate) meta: Arc<PeerMeta>,
    /// What opens a connection to a peer.
    pub(crate) preface: Arc<[u8]>,
}

impl Core {
    /// A core of a proxy.
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let shard = shared.telemetry.shard();
        Rc::new(Self {
            shard,
            pool: Pool::new(),
            targets: Targets::default(),
            drain: DrainTrigger::new(),
            server: Rc::new(ServerSettings::default()),
            strangers: Rc::new(ServerSettings {
                h2_max_early_resets: Some(MOST_EARLY_RESETS),
                ..ServerSettings::default()
            }),
            client: Rc::new(ClientSettings::default()),
            mesh_client: Rc::new(ClientSettings { h2_ping: Some(PEER_PING), ..ClientSettings::default() }),
            app_health: Arc::default(),
            app_uid: "application".into(),
            app_name: "".into(),
            random: RefCell::new(SmallRng::from_os_rng()),
            me: RefCell::default(),
            http_seen: RefCell::default(),
            used: RefCell::default(),
            shared,
        })
    }

    /// A uniform number.
    pub(crate) fn roll(&self) -> u32 {
        self.random.borrow_mut().random()
    }

    /// Whether an undeclared destination was seen to speak HTTP.
    pub(crate) fn was_http(&self, destination: SocketAddr) -> bool {
        self.http_seen.borrow().contains(&destination)
    }

    /// Notes that a destination speaks HTTP.
    pub(crate) fn saw_http(&self, destination: SocketAddr) {
        let mut seen = self.http_seen.borrow_mut();
        if seen.len() < MOST_HTTP_SEEN {
            seen.insert(destination);
        }
    }

    /// Notes that a service is called, so that its scope is kept.
    pub(crate) fn uses(&self, service: &ServiceId) {
        let mut used = self.used.borrow_mut();
        if !used.contains(service) {
            used.insert(service.clone());
        }
    }

    /// Tells what was called since the last time. Called every second, so that no request takes the lock.
    pub(crate) fn report_used(&self) {
        let used = std::mem::take(&mut *self.used.borrow_mut());
        if !used.is_empty() {
            self.shared.demand.touch(used.iter());
        }
    }

    /// How long a connection that this proxy's certificate opens is used: its server asks it to end with the certificate, and
    /// nothing may be on its way to it then.
    pub(crate) fn proved_for(&self) -> Option<Duration> {
        let ends = self.shared.identity.certificate()?.not_after();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(Duration::from_secs(ends.as_secs()).saturating_sub(now + BEFORE_EXPIRY))
    }

    /// Whether whoever connects is on this proxy's own machine or pod: nobody else may speak with the workload's identity.
    pub(crate) fn is_own(&self, remote: IpAddr) -> bool {
        self.shared.bootstrap.is_own(remote)
    }

    /// Random bytes for ids.
    pub(crate) fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.borrow_mut().fill(bytes.as_mut_slice());
        bytes
    }

    /// Who this proxy's workload is.
    pub(crate) fn me(&self) -> Me {
        let tables = self.shared.tables.load();
        let workload = tables.inbound().map(|inbound| &inbound.workload);
        let mut cached = self.me.borrow_mut();
        if let (Some(workload), Some((of, me))) = (workload, &*cached)
            && Arc::ptr_eq(workload, of)
        {
            return me.clone();
        }
        let me = match workload {
            Some(workload) => {
                Me::of(workload, self.shared.identity.certificate().map(|own| own.spiffe_id().clone()))
            }
            None => Me::unnamed(&self.shared),
        };
        if let Some(workload) = workload {
            *cached = Some((workload.clone(), me.clone()));
        }
        me
    }
}

impl Me {
    fn of(workload: &Workload, principal: Option<leno_model::SpiffeId>) -> Self {
        let label = |name: &str| workload.labels.get(name).cloned().unwrap_or_else(|| "".into());
        let meta = PeerMeta {
            workload: workload.owner.clone(),
            namespace: workload.id.namespace.shared(),
            canonical_service: workload.canonical_name.clone(),
            canonical_revision: workload.canonical_revision.clone(),
            app: label("app"),
            version: label("version"),
            cluster: workload.cluster.shared(),
            principal,
            region: workload.locality.region.clone(),
            zone: workload.locality.zone.clone(),
        };
        Self::from_meta(meta)
    }

    /// A gateway, or a sidecar that does not know its workload yet.
    fn unnamed(shared: &Shared) -> Self {
        let id = &shared.bootstrap.workload;
        Self::from_meta(PeerMeta {
            workload: id.name.clone(),
            namespace: id.namespace.shared(),
            canonical_service: id.name.clone(),
            canonical_revision: "latest".into(),
            cluster: shared.bootstrap.cluster.shared(),
            principal: shared.identity.certificate().map(|own| own.spiffe_id().clone()),
            ..PeerMeta::default()
        })
    }

    fn from_meta(meta: PeerMeta) -> Self {
        let preface = Preface {
            workload: meta.workload.clone(),
            namespace: meta.namespace.clone(),
            canonical: (meta.canonical_service.clone(), meta.canonical_revision.clone()),
            app: (meta.app.clone(), meta.version.clone()),
            cluster: meta.cluster.clone(),
            place: (meta.region.clone(), meta.zone.clone()),
            idle: crate::forward::target::IDLE,
        };
        Self { preface: preface.encode().into(), meta: Arc::new(meta) }
    }
}
