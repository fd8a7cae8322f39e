//! What the cores of one proxy share: configuration, identity, health of endpoints, telemetry.
//!
//! Invariant: written by one side each (tables by the subscription, identity by enrolment); the request path only reads.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use leno_decide::Tables;
use leno_identity::IdentityStore;
use leno_telemetry::Telemetry;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::{
    balance::health::HealthBook,
    bootstrap::{Bootstrap, Role},
    capture::verify::Verified,
    config::demand::Demand,
    denials::DenialIds,
};

/// How far a proxy is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// Asking its clients to go elsewhere, and serving those that have not heard.
    Draining,
    /// Taking nothing new: who dials is refused, which any client may answer by dialling another endpoint.
    Closing,
    /// Over.
    Stopped,
}

/// See the module.
pub(crate) struct Shared {
    /// What it was told at its start.
    pub(crate) bootstrap: Bootstrap,
    /// Its certificate and trust.
    pub(crate) identity: Arc<IdentityStore>,
    /// The configuration in force.
    pub(crate) tables: ArcSwap<Tables>,
    /// Asks for more of it.
    pub(crate) demand: Arc<Demand>,
    /// What is known of endpoints.
    pub(crate) health: HealthBook,
    /// Metrics, logs, spans.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Ids of refusals, for `leno why`.
    pub(crate) denials: DenialIds,
    /// Told when tables change; the publication's number.
    pub(crate) changed: watch::Sender<u64>,
    /// Serving, draining, stopped.
    pub(crate) phase: watch::Sender<Phase>,
    /// Where it listens, by the port that clients think of.
    pub(crate) listening: Mutex<BTreeMap<u16, SocketAddr>>,
    /// Requests and connections in flight.
    pub(crate) in_flight: AtomicU64,
    /// Connections from outside that are open, and one more as long as any can come.
    pub(crate) open: AtomicU64,
    /// Whether the application's connections come here.
    pub(crate) capture: Verified,
    /// Why there is no new certificate.
    pub(crate) enrolment: watch::Receiver<Option<String>>,
    started: Instant,
}

/// What a [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) identity: Arc<IdentityStore>,
    pub(crate) tables: Tables,
    pub(crate) demand: Arc<Demand>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) enrolment: watch::Receiver<Option<String>>,
}

impl Shared {
    /// Joins its parts.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { bootstrap, identity, tables, demand, telemetry, enrolment } = parts;
        let capture = Verified::new(bootstrap.role, bootstrap.capture);
        Arc::new(Self {
            denials: DenialIds::new(&bootstrap.workload),
            bootstrap,
            identity,
            tables: ArcSwap::from_pointee(tables),
            demand,
            health: HealthBook::default(),
            telemetry,
            changed: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Serving),
            listening: Mutex::default(),
            in_flight: AtomicU64::new(0),
            open: AtomicU64::new(0),
            capture,
            enrolment,
            started: Instant::now(),
        })
    }

    /// What a client is told of a failure: everything inside the mesh, only the general words where clients are outside, for
    /// addresses, names and identities of the mesh are not theirs to know.
    pub(crate) fn words<'m>(&self, inside: &'m str, general: &'static str) -> &'m str {
        match self.bootstrap.role {
            Role::Sidecar => inside,
            Role::Gateway => general,
        }
    }

    /// Puts new tables in force.
    pub(crate) fn swap(&self, tables: Tables, publication: u64) {
        self.tables.store(Arc::new(tables));
        self.changed.send_replace(publication);
    }

    /// Milliseconds since the proxy began: the clock of ejections. Never 0.
    pub(crate) fn clock(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Goes on to a phase, never back.
    pub(crate) fn reach(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < next;
            if later {
                *phase = next;
            }
            later
        });
    }

    /// Whether new work had better go elsewhere.
    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Whether nothing new is taken in.
    pub(crate) fn is_closing(&self) -> bool {
        *self.phase.borrow() >= Phase::Closing
    }
}

/// Counts an open connection until dropped, or that connections are taken in.
pub(crate) struct Open(Arc<Shared>);

impl Open {
    /// One more.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Counts something in flight until dropped.
pub(crate) struct Busy(Arc<Shared>);

impl Busy {
    /// One more.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
