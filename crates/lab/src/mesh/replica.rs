//! One replica: its proxy and its application, from their start to their end.
//!
//! Invariants: the application answers before its proxy is started, and outlives it; a proxy that ends by itself is started
//! again, ever more slowly; the task ends only after it was told to go, and says so last.
//! Must not know: other replicas, overlays.

use std::{path::PathBuf, sync::Arc, time::Duration};

use leno_model::{SpiffeId, WorkloadId};
use leno_proxy::bootstrap::Bootstrap;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    proxies::{self, ProxyProblem, RunningProxy},
    shared::Shared,
    tokens::Tokens,
};
use crate::standin::{Dialer, Running, StandIn, StandInError, StandInSpec};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After this long, an end counts as the first one.
const STEADY: Duration = Duration::from_secs(30);
/// How long an application may finish what it has once its proxy is gone.
const APP_GRACE: Duration = Duration::from_secs(2);

/// What a replica is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Run; with the stand-in, or with a program of the user in its place.
    Run { stand_in: bool },
    /// Finish what is under way and end.
    Drain,
    /// End at once.
    Kill,
}

/// What a replica tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Its proxy and its application answer.
    Ready,
    /// They no longer do.
    Lost,
    /// The stand-in is gone, its proxy is not.
    Vacated,
    /// It has ended.
    Gone,
}

/// A replica's report.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) id: WorkloadId,
    /// Of several lives of one name, which.
    pub(super) life: u64,
    pub(super) happened: Happened,
}

/// What a replica is made of.
pub(super) struct Replica {
    pub(super) id: WorkloadId,
    pub(super) life: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) tokens: Arc<Tokens>,
    /// Its own folder.
    pub(super) folder: PathBuf,
    /// Its proxy and its identity; `None`: it has none.
    pub(super) proxy: Option<(Bootstrap, SpiffeId)>,
    /// Its application; gateways have none.
    pub(super) app: Option<(StandInSpec, Dialer)>,
    pub(super) reports: mpsc::Sender<Report>,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    App(#[from] StandInError),
    #[error(transparent)]
    Proxy(#[from] ProxyProblem),
    #[error("no join token can be written")]
    Token(#[source] std::io::Error),
}

/// What of a replica runs.
#[derive(Default)]
struct Parts {
    app: Option<Running>,
    proxy: Option<RunningProxy>,
}

impl Replica {
    /// Runs it until it is told to go.
    pub(super) async fn run(self, mut order: watch::Receiver<Order>) {
        let mut parts = Parts::default();
        let mut pause = FIRST_PAUSE;
        let last = loop {
            let started = Instant::now();
            let told = order.clone();
            let problem = tokio::select! {
                biased;
                last = told_to_go(&mut order) => break last,
                problem = Box::pin(self.live(&mut parts, told)) => problem,
            };
            tracing::warn!(replica = %self.id, error = &problem as &dyn std::error::Error, "starts again");
            self.report(Happened::Lost).await;
            if let Some(proxy) = parts.proxy.take() {
                proxy.kill().await;
            }
            pause = if started.elapsed() > STEADY { FIRST_PAUSE } else { pause };
            tokio::select! {
                last = told_to_go(&mut order) => break last,
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        };
        parts.end(last).await;
        self.report(Happened::Gone).await;
    }

    /// Starts what is missing, and stays until something fails.
    async fn live(&self, parts: &mut Parts, mut order: watch::Receiver<Order>) -> Problem {
        let first = *order.borrow_and_update();
        if let Err(problem) = self.start(parts, first).await {
            return problem;
        }
        self.report(Happened::Ready).await;
        loop {
            let ended = async {
                match &mut parts.proxy {
                    Some(proxy) => proxy.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                problem = ended => return problem.into(),
                changed = order.changed() => {
                    if changed.is_err() {
                        // Whoever gives orders is gone; `told_to_go` sees it too.
                        std::future::pending::<()>().await;
                    }
                }
            }
            let now = *order.borrow_and_update();
            if let Err(problem) = self.fill(parts, now).await {
                return problem;
            }
        }
    }

    async fn start(&self, parts: &mut Parts, order: Order) -> Result<(), Problem> {
        // The semaphore is never closed; were it, there would be no bound, and no harm.
        let _turn = self.shared.starting.acquire().await;
        self.fill(parts, order).await?;
        if let (Some((bootstrap, identity)), None) = (&self.proxy, &parts.proxy) {
            let token = self.tokens.issue(&self.id, identity).await.map_err(Problem::Token)?;
            let proxy = proxies::start(&self.shared, bootstrap.clone(), token, &self.folder).await?;
            parts.proxy.insert(proxy).ready().await?;
        }
        Ok(())
    }

    /// Starts or ends the stand-in, as the order says.
    async fn fill(&self, parts: &mut Parts, order: Order) -> Result<(), Problem> {
        let Some((spec, dialer)) = &self.app else { return Ok(()) };
        match (order, parts.app.is_some()) {
            (Order::Run { stand_in: true }, false) => {
                parts.app = Some(StandIn::start(spec.clone(), dialer.clone())?);
            }
            (Order::Run { stand_in: false }, true) => {
                if let Some(app) = parts.app.take() {
                    app.stop(APP_GRACE).await;
                }
                self.report(Happened::Vacated).await;
            }
            (Order::Run { .. } | Order::Drain | Order::Kill, _) => {}
        }
        Ok(())
    }

    async fn report(&self, happened: Happened) {
        let report = Report { id: self.id.clone(), life: self.life, happened };
        // Nobody listens any more when the whole mesh ends.
        let _ = self.reports.send(report).await;
    }
}

impl Parts {
    async fn end(self, last: Order) {
        let Self { app, proxy } = self;
        if last == Order::Kill {
            drop(app);
            if let Some(proxy) = proxy {
                proxy.kill().await;
            }
            return;
        }
        if let Some(proxy) = proxy {
            Box::pin(proxy.stop()).await;
        }
        if let Some(app) = app {
            app.stop(APP_GRACE).await;
        }
    }
}

/// The order to go, when it comes. Without anybody to give it, it is to end at once.
async fn told_to_go(order: &mut watch::Receiver<Order>) -> Order {
    let told = order.wait_for(|order| matches!(order, Order::Drain | Order::Kill)).await;
    told.map_or(Order::Kill, |order| *order)
}
