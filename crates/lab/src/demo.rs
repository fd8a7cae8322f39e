//! `leno demo`: a scenario of our own under load, taken through changes and failures, with a verdict for each claim.
//!
//! ```text
//!   scenario   the manifests            traffic   open-loop load, as applications and as outsiders
//!   phases     claims and what happens  measure   what the mesh says of itself            stage   what phases have in common
//!   report     the outcome
//! ```
//!
//! Invariants: failures, denials and identities are judged, latencies only shown; every request is counted in one phase; a
//! claim that was not tested does not hold.
//! Must not know: how anything of it is printed (see [`Event`]).

mod measure;
mod phases;
mod report;
mod scenario;
mod stage;
mod traffic;

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

pub use measure::Overhead;
pub use report::{DemoReport, PhaseReport};

use crate::{
    load::LoadError,
    mesh::{Mesh, MeshError, MeshPlan, NoSuch, NotReady, RestoreError},
};
use report::{lines, summary};
use scenario::Scenario;
use stage::Stage;
use traffic::Traffic;

/// How long workloads may take to be ready.
const READY: Duration = Duration::from_secs(120);
/// The lifetime of certificates in a demo of a minute and longer, and as a share of the time of a shorter one.
const LONGEST_LIFE: Duration = Duration::from_secs(100);
const LIVES_LONGER: f64 = 5.0 / 3.0;
/// Time for a proxy that is told to go, at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// The least time in which every phase has something to show.
pub const LEAST_TIME: Duration = Duration::from_secs(20);

/// What to do.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Time for everything, the start included; [`LEAST_TIME`] or more.
    pub for_: Duration,
    /// Services; at least 6.
    pub services: usize,
    /// Clusters: 2 or 3. The last is a region of its own.
    pub clusters: usize,
    /// Requests a second.
    pub rate: f64,
    /// Threads that carry the proxies' traffic.
    pub workers: usize,
    /// Each control plane and proxy is a process of its own.
    pub processes: bool,
    /// Lifetime of certificates: short, so that they are renewed under load. `None`: as the time asks for.
    pub certificate_ttl: Option<Duration>,
    /// Phases to go through; empty: all.
    pub only: Vec<Phase>,
    /// A phase that is broken on purpose, to see that the demo says so.
    pub broken: Option<Broken>,
    /// Where the mesh describes itself; `None`: as `leno up` does.
    pub record: Option<std::path::PathBuf>,
}

/// A part of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing happens.
    Steady,
    /// A canary is shifted by editing a file.
    Canary,
    /// A policy denies a caller, and is taken back.
    Policy,
    /// Certificates are renewed.
    Certificates,
    /// A region is lost, and comes back.
    Region,
    /// All control planes are killed, and come back.
    ControlPlane,
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The file says another split than is claimed.
    Canary,
    /// The policy denies a caller that should not be.
    Policy,
}

/// Something to show.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A line that stays.
    Line(&'a str),
    /// The present state, replaced by the next event.
    Live(&'a str),
}

/// Shows what happens.
pub type Say = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The manifests.
    #[error("the demo's manifests cannot be written")]
    Files(#[from] io::Error),
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// Its workloads.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A cluster.
    #[error(transparent)]
    NoSuch(#[from] NoSuch),
    /// A cluster or control plane that does not come back.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A workload of the demo's own.
    #[error("the demo's workload {0} does not run")]
    NoWorkload(String),
    /// A part of the scenario.
    #[error("the demo's scenario lacks {0}")]
    Scenario(&'static str),
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            for_: Duration::from_secs(60),
            services: 200,
            clusters: 3,
            rate: 300.0,
            workers: 1,
            processes: false,
            certificate_ttl: None,
            only: Vec::new(),
            broken: None,
            record: None,
        }
    }
}

impl DemoOptions {
    /// The lifetime of certificates: as much longer than the demo that half of it, when they are renewed, falls into the phase
    /// that is about it; in a long demo several times.
    pub fn lifetime(&self) -> Duration {
        self.certificate_ttl.unwrap_or_else(|| LONGEST_LIFE.min(self.for_.mul_f64(LIVES_LONGER)))
    }
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Steady, Self::Canary, Self::Policy, Self::Certificates, Self::Region, Self::ControlPlane];

    /// Its share of the time.
    fn share(self) -> f64 {
        match self {
            Self::Steady | Self::Certificates => 0.12,
            Self::Canary | Self::Policy | Self::ControlPlane => 0.18,
            Self::Region => 0.22,
        }
    }
}

/// Runs the demo on the current runtime.
///
/// # Errors
/// When the mesh does not start, or loses what the demo cannot do without. A claim that does not hold is no error.
pub async fn run(options: DemoOptions, say: Say) -> Result<DemoReport, DemoError> {
    let started = Instant::now();
    let folder = tempfile::tempdir()?;
    let scenario = Scenario::write(folder.path(), options.services, options.clusters)?;
    say(Event::Line(&format!(
        "{} clusters in 2 regions, {} services: the manifests are in {}",
        scenario.clusters.len(),
        scenario.services.len(),
        folder.path().display()
    )));
    let plan = MeshPlan {
        certificate_ttl: options.lifetime(),
        drain: DRAIN,
        workers: options.workers,
        processes: options.processes,
        record: options.record.clone(),
        ..MeshPlan::new(scenario.clusters.clone())
    };
    let mesh = Mesh::start(plan).await?;
    let result = with_mesh(&options, &mesh, &scenario, started, &say).await;
    say(Event::Live("stopping"));
    Box::pin(mesh.stop()).await;
    result
}

async fn with_mesh(
    options: &DemoOptions,
    mesh: &Mesh,
    scenario: &Scenario,
    started: Instant,
    say: &Say,
) -> Result<DemoReport, DemoError> {
    stage::until_ready(mesh, READY, say).await?;
    stage::until_gateway(mesh, READY).await.ok_or(DemoError::Scenario("the gateway"))?;
    let up = started.elapsed();
    let workloads = measure::workloads(mesh).len();
    let gateways = mesh.record().clusters.iter().map(|cluster| cluster.gateways.len()).sum::<usize>();
    let proxies = workloads + gateways;
    say(Event::Line(&format!("{proxies} proxies serve after {:.1} s", up.as_secs_f64())));
    let mut report = DemoReport {
        up_seconds: up.as_secs_f64(),
        services: scenario.services.len(),
        clusters: scenario.clusters.len(),
        proxies,
        ..DemoReport::default()
    };
    let traffic = Traffic::start(mesh, scenario, options.rate)?;
    let time = options.for_.saturating_sub(up).max(options.for_ / 2);
    let stage = Stage { mesh, scenario, traffic: &traffic, options, say };
    let ran = run_phases(&stage, time, &mut report).await;
    traffic.stop().await;
    ran?;
    report.holds = report.phases.iter().all(|phase| phase.holds) && report.plaintext_accepted == 0;
    say(Event::Line(&summary(&report)));
    Ok(report)
}

async fn run_phases(stage: &Stage<'_>, time: Duration, report: &mut DemoReport) -> Result<(), DemoError> {
    let wanted = |phase: &Phase| stage.options.only.is_empty() || stage.options.only.contains(phase);
    for phase in Phase::ALL.into_iter().filter(wanted) {
        let time = time.mul_f64(phase.share());
        let outcome = match phase {
            Phase::Steady => {
                let (outcome, overhead) = Box::pin(phases::steady(stage, time)).await?;
                report.overhead_ms = Some(overhead);
                outcome
            }
            Phase::Canary => Box::pin(phases::canary(stage, time)).await?,
            Phase::Policy => Box::pin(phases::policy(stage, time)).await?,
            Phase::Certificates => Box::pin(phases::certificates(stage, time, report.proxies)).await,
            Phase::Region => Box::pin(phases::region(stage, time)).await?,
            Phase::ControlPlane => Box::pin(phases::control_plane(stage, time)).await?,
        };
        report.plaintext_accepted += outcome.plaintext_accepted;
        let outcome = outcome.report;
        report.requests += outcome.requests;
        report.failed += outcome.failed;
        for line in lines(&outcome) {
            (stage.say)(Event::Line(&line));
        }
        report.phases.push(outcome);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_live_as_long_as_the_time_asks_for() {
        let of = |seconds| {
            let options = DemoOptions { for_: Duration::from_secs(seconds), ..DemoOptions::default() };
            options.lifetime()
        };
        assert_eq!(of(60), Duration::from_secs(100));
        assert_eq!(of(600), Duration::from_secs(100), "and are renewed again and again");
        // Renewed at two fifths of their life at the earliest, three fifths at the latest: within the demo.
        assert!(of(20).mul_f64(0.6) < Duration::from_secs(21), "{:?}", of(20));
        let asked = DemoOptions { certificate_ttl: Some(Duration::from_secs(7)), ..DemoOptions::default() };
        assert_eq!(asked.lifetime(), Duration::from_secs(7));
    }
}
