//! Which of several replicas leads, by a Lease of the API server's.
//!
//! Invariants: a leader that cannot renew steps down before its lease can be taken by another; a lease is taken only when it
//! has not changed for its whole duration *as seen by our own clock*, so that skewed clocks do not matter.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, api::PostParams, core::ObjectMeta};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Cluster, is_status};

/// How long a lease holds after its last renewal.
const DURATION: Duration = Duration::from_secs(10);
/// Between two renewals or looks.
const PERIOD: Duration = Duration::from_secs(2);
/// A renewal that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tries to lead until `stop`; `leads` says whether it does. At the end the lease is given back.
pub(crate) async fn run(cluster: Cluster, leads: watch::Sender<bool>, stop: CancellationToken) {
    let name = cluster.config.control();
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.config.namespace);
    let mut seen: Option<Seen> = None;
    let mut renewed: Option<Instant> = None;
    loop {
        match timeout(PATIENCE, step(&leases, &name, &cluster.pod, &mut seen)).await {
            Ok(Ok(true)) => renewed = Some(Instant::now()),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => tracing::warn!(%error, lease = name, "the lease cannot be renewed"),
            Err(_) => tracing::warn!(lease = name, "renewing the lease takes too long"),
        }
        let leading = renewed.is_some_and(|when| when.elapsed() + PATIENCE + PERIOD < DURATION);
        leads.send_if_modified(|before| std::mem::replace(before, leading) != leading);
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(PERIOD) => {}
        }
    }
    leads.send_replace(false);
    if renewed.is_some() {
        // Another need not wait for its end.
        let _ = timeout(PATIENCE, give_back(&leases, &name, &cluster.pod)).await;
    }
}

/// A lease of another, and since when it is as it is.
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// Renews the lease or takes one that is free; whether it is ours.
async fn step(
    leases: &Api<Lease>,
    name: &str,
    me: &str,
    seen: &mut Option<Seen>,
) -> Result<bool, kube::Error> {
    let Some(lease) = leases.get_opt(name).await? else {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec: Some(spec(me, 0)),
        };
        return won(leases.create(&PostParams::default(), &lease).await);
    };
    let held = lease.spec.clone().unwrap_or_default();
    let holder = held.holder_identity.as_deref().unwrap_or("");
    let transitions = held.lease_transitions.unwrap_or(0);
    if holder == me {
        return won(replace(leases, lease, spec(me, transitions)).await);
    }
    let version = lease.metadata.resource_version.clone();
    let unchanged = seen.as_ref().filter(|seen| seen.version == version).map(|seen| seen.since.elapsed());
    if unchanged.is_none() {
        *seen = Some(Seen { version, since: Instant::now() });
    }
    if holder.is_empty() || unchanged.is_some_and(|time| time > DURATION) {
        return won(replace(leases, lease, spec(me, transitions + 1)).await);
    }
    Ok(false)
}

/// Another that was faster is no error.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_status(&error, 409) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn replace(leases: &Api<Lease>, mut lease: Lease, new: LeaseSpec) -> Result<Lease, kube::Error> {
    let name = lease.metadata.name.clone().unwrap_or_default();
    lease.spec = Some(LeaseSpec { acquire_time: lease.spec.and_then(|old| old.acquire_time), ..new });
    // The resource version is in it: whoever was faster wins.
    leases.replace(&name, &PostParams::default(), &lease).await
}

async fn give_back(leases: &Api<Lease>, name: &str, me: &str) -> Result<(), kube::Error> {
    let Some(lease) = leases.get_opt(name).await? else { return Ok(()) };
    let held = lease.spec.clone().unwrap_or_default();
    if held.holder_identity.as_deref() == Some(me) {
        let transitions = held.lease_transitions.unwrap_or(0);
        replace(leases, lease, spec("", transitions)).await?;
    }
    Ok(())
}

fn spec(holder: &str, transitions: i32) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        lease_transitions: Some(transitions),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        ..LeaseSpec::default()
    }
}
