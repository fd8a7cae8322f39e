//! What only one replica does, as long as it leads.
//!
//! Invariant: each duty compares before it writes, so that a new leader that finds everything in order writes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::ConfigMap},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::ObjectMeta,
};
use leno_apis::Kind;
use leno_identity::pem;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Cluster, KubernetesError, MANAGER, events::Events, failed, gateways::Gateways, status::Statuses,
};
use crate::{api::Api as Views, input::describe, published::Published};

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// After so many rounds everything is compared with the API server again, in case somebody changed it.
const FULL_ROUND: u32 = 60;

/// The ConfigMap from which pods mount the mesh's roots.
const ROOTS: &str = "leno-ca-root-cert";
const ROOTS_KEY: &str = "root-cert.pem";
/// Namespaces without workloads of the mesh.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The duties of a leader.
pub(crate) struct Leader {
    pub(crate) cluster: Cluster,
    pub(crate) api: Arc<Views>,
    pub(crate) leads: watch::Receiver<bool>,
}

/// What this leader knows to be written.
#[derive(Default)]
struct Done {
    rooted: BTreeSet<String>,
    bundled: bool,
    gateways: Gateways,
    statuses: Statuses,
    events: Events,
    rounds: u32,
}

/// Does the duties while leading, until `stop`.
pub(crate) async fn run(leader: Leader, stop: CancellationToken) {
    let mut done = Done::default();
    let mut round = interval(PERIOD);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut led = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = round.tick() => {}
        }
        let leads = *leader.leads.borrow();
        if leads != led {
            tracing::info!(leads, pod = leader.cluster.pod, "leadership");
            led = leads;
        }
        if !leads {
            done = Done::default();
            continue;
        }
        done.rounds += 1;
        if done.rounds % FULL_ROUND == 0 {
            done.rooted.clear();
            done.bundled = false;
            done.gateways.look_again();
        }
        if let Err(error) = leader.duties(&mut done).await {
            tracing::warn!(error = describe(&error), "a duty of the leader is left for the next round");
        }
    }
}

impl Leader {
    async fn duties(&self, done: &mut Done) -> Result<(), KubernetesError> {
        let roots = pem::encode_certificates(self.api.authority.bundle().roots());
        if !done.bundled {
            done.bundled = bundle(&self.cluster, &roots).await?;
        }
        let Some(published) = self.api.newest.load() else { return Ok(()) };
        // What cannot be done for one object keeps nothing from being done for another.
        let rooted = self.root_namespaces(&published, &roots, &mut done.rooted).await;
        let run = done.gateways.run(&self.cluster, &published.world).await;
        let said = done.statuses.write(&self.cluster, &self.api, &published, &done.gateways).await;
        let told = done.events.write(&self.cluster, &published, &done.gateways, Instant::now()).await;
        rooted.and(said).and(run).and(told)
    }

    /// Writes the roots into every namespace that has not got them.
    async fn root_namespaces(
        &self,
        published: &Published,
        roots: &str,
        rooted: &mut BTreeSet<String>,
    ) -> Result<(), KubernetesError> {
        let namespaces =
            published.world.of_kind(Kind::Namespace).map(|object| object.metadata().name.clone());
        for namespace in namespaces.filter(|it| !SYSTEM.contains(&it.as_str())) {
            if rooted.contains(&namespace) {
                continue;
            }
            match root(&self.cluster, &namespace, roots).await? {
                Rooting::Done => {}
                Rooting::Ending => tracing::debug!(namespace, "the namespace is going, and gets no roots"),
                Rooting::Refused(why) => {
                    tracing::warn!(
                        namespace,
                        why,
                        "the roots may not be written: new pods there will not start"
                    );
                }
            }
            rooted.insert(namespace);
        }
        Ok(())
    }
}

/// What came of giving a namespace the roots.
#[derive(Debug, PartialEq)]
enum Rooting {
    /// It has them.
    Done,
    /// It is going, and takes nothing new.
    Ending,
    /// We may not: a right is missing, or a quota or a policy of the cluster is in the way.
    Refused(String),
}

/// Writes the roots into a namespace unless it has them.
async fn root(cluster: &Cluster, namespace: &str, roots: &str) -> Result<Rooting, KubernetesError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("ConfigMap {namespace}/{ROOTS} cannot be written");
    let found = match maps.get_opt(ROOTS).await {
        Err(error) if super::is_status(&error, 403) => return Ok(Rooting::Refused(error.to_string())),
        found => found.map_err(failed(what.clone()))?,
    };
    if found.is_some_and(|it| it.data.is_some_and(|data| data.get(ROOTS_KEY).is_some_and(|it| it == roots))) {
        return Ok(Rooting::Done);
    }
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(ROOTS.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(ROOTS_KEY.to_owned(), roots.to_owned())])),
        ..ConfigMap::default()
    };
    match maps.patch(ROOTS, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await {
        Ok(_) => Ok(Rooting::Done),
        Err(error) if super::is_status(&error, 404) || is_ending(&error) => Ok(Rooting::Ending),
        Err(error) if super::is_status(&error, 403) => Ok(Rooting::Refused(error.to_string())),
        Err(error) => Err(failed(what)(error)),
    }
}

/// Whether the API server refuses because the namespace is going. It says "forbidden", as it does when a right is missing.
fn is_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Keeps the bundle by which the API server verifies our webhook. `false`: there is no webhook yet (it is installed last).
async fn bundle(cluster: &Cluster, roots: &str) -> Result<bool, KubernetesError> {
    let name = &cluster.config.webhook();
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let what = format!("MutatingWebhookConfiguration {name} cannot be kept up to date");
    let Some(mut found) = api.get_opt(name).await.map_err(failed(what.clone()))? else {
        return Ok(false);
    };
    let bundle = ByteString(roots.as_bytes().to_vec());
    let mut stale = false;
    for hook in found.webhooks.iter_mut().flatten() {
        stale |= hook.client_config.ca_bundle.replace(bundle.clone()).as_ref() != Some(&bundle);
    }
    if stale {
        // The resource version is in it: a change in between is not overwritten.
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version}, "webhooks": found.webhooks,
        });
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(failed(what))?;
        tracing::info!(webhook = name, "its bundle is up to date");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::Fake;

    #[tokio::test]
    async fn roots_that_may_not_be_written_are_told_from_namespaces_that_go() {
        let fake = Fake::start().await;
        let path = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps/leno-ca-root-cert");
        assert_eq!(root(&fake.cluster(), "shop", "roots").await.unwrap(), Rooting::Done);
        assert_eq!(fake.get(&path("shop"))["data"]["root-cert.pem"], "roots");
        fake.forbid(&path("locked"));
        let refused = root(&fake.cluster(), "locked", "roots").await.unwrap();
        assert!(matches!(&refused, Rooting::Refused(why) if why.contains("exceeded quota")), "{refused:?}");

        let error = |causes: serde_json::Value| {
            let status = json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": "no", "details": {"causes": causes}});
            kube::Error::Api(serde_json::from_value(status).unwrap())
        };
        let going = json!([{"reason": "NamespaceTerminating", "message": "namespace shop is being terminated", "field": "metadata.namespace"}]);
        assert!(is_ending(&error(going)));
        assert!(!is_ending(&error(json!([]))));
    }

    #[tokio::test]
    async fn a_webhook_that_is_installed_later_gets_its_bundle_then() {
        let fake = Fake::start().await;
        assert!(!bundle(&fake.cluster(), "roots").await.unwrap(), "it is not there yet, so this is not done");
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/leno-sidecar-injector-leno-system";
        let hook = json!({"name": "a.leno.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {}});
        fake.put(
            path,
            json!({"metadata": {"name": "leno-sidecar-injector-leno-system"}, "webhooks": [hook]}),
        );
        assert!(bundle(&fake.cluster(), "roots").await.unwrap());
        assert_eq!(fake.get(path)["webhooks"][0]["clientConfig"]["caBundle"], "cm9vdHM=");
        assert_eq!(fake.writes().len(), 1);
        assert!(bundle(&fake.cluster(), "roots").await.unwrap());
        assert_eq!(fake.writes().len(), 1, "it is written when it differs");
    }
}
