//! What all clusters of one mesh share.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use leno_model::TrustDomain;
use leno_proxy::{
    Worker, Workers,
    bootstrap::{AccessLog, Tracing},
};
use tokio::sync::Semaphore;

use super::child::Binaries;
use crate::{
    embedded::{Block, PodPlan},
    standin::BehaviourFile,
};

/// Replicas that start at the same time: more would only wait for each other.
const STARTING: usize = 32;
/// Where low ports go when they may not be bound.
const LOW_PORT_OFFSET: u16 = 8000;

/// See the module.
pub(super) struct Shared {
    pub(super) trust_domain: TrustDomain,
    /// The roots, PEM.
    pub(super) roots: String,
    /// How proxies and control planes are started apart; `None`: they run in this process.
    pub(super) binaries: Option<Binaries>,
    pub(super) behaviours: Option<Arc<BehaviourFile>>,
    pub(super) bookinfo: Arc<BehaviourFile>,
    pub(super) certificate_ttl: Duration,
    pub(super) drain: Duration,
    pub(super) access_log: AccessLog,
    pub(super) tracing: Option<Tracing>,
    pub(super) low_port_offset: u16,
    pub(super) starting: Semaphore,
    pub(super) workers: Arc<Workers>,
    pub(super) next_worker: AtomicUsize,
}

impl Shared {
    /// The next thread for a proxy's traffic.
    pub(super) fn worker(&self) -> Worker {
        self.workers.get(self.next_worker.fetch_add(1, Ordering::Relaxed))
    }

    /// What stand-ins do: what the user's file says, else what Bookinfo's applications do where it runs.
    pub(super) fn behaviours(&self, pods: &[PodPlan]) -> Arc<BehaviourFile> {
        match &self.behaviours {
            Some(behaviours) => behaviours.clone(),
            None if pods.iter().any(|pod| pod.app() == "productpage") => self.bookinfo.clone(),
            None => Arc::default(),
        }
    }

    /// Bounds how many replicas start at once.
    pub(super) fn starting() -> Semaphore {
        Semaphore::new(STARTING)
    }
}

/// What is added to ports below 1024: nothing where they may be bound.
pub(super) fn low_port_offset(block: &Block) -> u16 {
    match TcpListener::bind((block.control(0), 1)) {
        Ok(_) => 0,
        Err(_) => LOW_PORT_OFFSET,
    }
}
