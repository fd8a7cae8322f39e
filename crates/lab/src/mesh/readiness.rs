//! When a mesh is ready: everything runs, and every proxy has heard so.
//!
//! Invariant: a control plane that does not answer is not waited for; what runs then runs on what it knew.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{
    NotReady, api,
    record::{ClusterRecord, MeshRecord},
};

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// How long proxies may take to hear that all endpoints are ready. Manifests may list endpoints that never are.
const SPREAD: Duration = Duration::from_secs(5);

/// Waits until it is, or says what is missing.
pub(super) async fn wait(mut record: watch::Receiver<MeshRecord>, within: Duration) -> Result<(), NotReady> {
    let deadline = Instant::now() + within;
    loop {
        let waited = timeout_at(deadline, record.wait_for(all_ready)).await;
        if !waited.is_ok_and(|record| record.is_ok()) {
            return Err(missing(&record.borrow(), within));
        }
        let clusters = record.borrow().clusters.clone();
        if all_of(&clusters, has_its_gateways).await {
            break;
        }
        if Instant::now() >= deadline {
            return Err(missing(&record.borrow(), within));
        }
        sleep(ASK_AGAIN).await;
    }
    let enough = deadline.min(Instant::now() + SPREAD);
    while Instant::now() < enough {
        let clusters = record.borrow().clusters.clone();
        if all_of(&clusters, has_spread).await {
            break;
        }
        sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// Whether everything that is known is ready. A mesh without workloads is ready.
fn all_ready(record: &MeshRecord) -> bool {
    record.clusters.iter().all(|cluster| {
        cluster.workloads.iter().all(|workload| workload.ready || workload.terminating)
            && cluster.gateways.iter().all(|gateway| gateway.ready)
    })
}

async fn all_of(clusters: &[ClusterRecord], holds: impl AsyncFn(&ClusterRecord) -> bool) -> bool {
    for cluster in clusters {
        if !holds(cluster).await {
            return false;
        }
    }
    true
}

/// Whether every gateway that was compiled is among those that run.
async fn has_its_gateways(cluster: &ClusterRecord) -> bool {
    let Ok(answer) = api::get_json(cluster.api, "/v1/gateways").await else { return true };
    let compiled = answer["gateways"].as_array().into_iter().flatten();
    let wanted = compiled.filter(|gateway| gateway["has_pod"] == false).count();
    wanted <= cluster.gateways.len()
}

/// Whether all endpoints are ready, and every proxy has acknowledged the newest generation.
async fn has_spread(cluster: &ClusterRecord) -> bool {
    let Ok(services) = api::get_json(cluster.api, "/v1/services").await else { return true };
    let mut services = services["services"].as_array().into_iter().flatten();
    if !services.all(|service| service["endpoints"]["ready"] == service["endpoints"]["total"]) {
        return false;
    }
    let Ok(mut proxies) = api::get_json(cluster.api, "/v1/proxies").await else { return true };
    let rollout: Value = proxies["rollout"].take();
    rollout["acknowledged"] == rollout["expected"]
}

fn missing(record: &MeshRecord, within: Duration) -> NotReady {
    let workloads = || record.clusters.iter().flat_map(|cluster| &cluster.workloads);
    let late = workloads().filter(|workload| !workload.ready).map(|workload| workload.id.to_string());
    let gateways = record.clusters.iter().flat_map(|cluster| &cluster.gateways);
    let late = late.chain(gateways.filter(|gateway| !gateway.ready).map(|gateway| gateway.id.to_string()));
    NotReady {
        ready: workloads().filter(|workload| workload.ready).count(),
        all: workloads().count(),
        within,
        missing: late.take(5).collect(),
    }
}
