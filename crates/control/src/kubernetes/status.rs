//! Writes what the compiler has to say to each object's author into the object's status.
//!
//! Invariants: a status is written only when it differs from what is there; other controllers' entries are kept; a transition
//! time changes only with its condition.

mod render;

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use leno_compile::{ObjectKey, ObjectStatus};
use serde_json::{Value, json};

pub(super) use self::render::CONTROLLER;
use self::render::{Acknowledged, Context, render};
use super::{Cluster, KubernetesError, MANAGER, failed, is_status};
use crate::{api::Api as Views, published::Published, rollout};

/// Writes under way at a time.
const AT_A_TIME: usize = 8;
/// Writes of one round; the rest waits for the next.
const A_ROUND: usize = 200;

/// The groups whose objects have a status that is ours to write.
const GROUPS: [&str; 3] = ["gateway.networking.k8s.io", "networking.istio.io", "security.istio.io"];

/// What was written last.
#[derive(Default)]
pub(crate) struct Statuses {
    written: BTreeMap<ObjectKey, Written>,
}

/// One object's status as it was written.
struct Written {
    status: ObjectStatus,
    /// The object's generation that it speaks of.
    observed: Option<i64>,
    /// The publication since which that generation is in force.
    since: u64,
    acknowledged: bool,
}

/// A status that has to be written.
struct Due {
    key: ObjectKey,
    written: Written,
    acknowledged: Acknowledged,
}

impl Statuses {
    /// Writes what differs from what was written before.
    pub(crate) async fn write(
        &mut self,
        cluster: &Cluster,
        views: &Views,
        published: &Published,
    ) -> Result<(), KubernetesError> {
        self.written.retain(|key, _| published.compiled.statuses.contains_key(key));
        let proxies = rollout::proxies(&views.sessions, published);
        let rollout = rollout::rollout(&proxies);
        let connected = proxies.iter().filter(|proxy| proxy.connected);
        let oldest =
            connected.map(|proxy| proxy.acknowledged.unwrap_or(0)).min().unwrap_or(published.generation);
        let due: Vec<Due> =
            self.due(published, oldest, (rollout.connected, rollout.connected)).take(A_ROUND).collect();
        let results: Vec<_> = stream::iter(due)
            .map(|due| async move { (write_one(cluster, published, &due).await, due) })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let mut problem = Ok(());
        for (result, due) in results {
            match result {
                Ok(()) => {
                    self.written.insert(due.key, due.written);
                }
                Err(error) => problem = Err(error),
            }
        }
        problem
    }

    fn due<'a>(
        &'a self,
        published: &'a Published,
        oldest: u64,
        count: (usize, usize),
    ) -> impl Iterator<Item = Due> + 'a {
        published.compiled.statuses.iter().filter_map(move |(key, status)| {
            if !GROUPS.contains(&key.kind.info().group) {
                return None;
            }
            let observed = published.world.get(key)?.metadata().generation;
            let before = self.written.get(key);
            let same_object = before.filter(|before| before.observed == observed && before.status == *status);
            let since = same_object.map_or(published.generation, |before| before.since);
            let acknowledged = oldest >= since;
            if same_object.is_some_and(|before| before.acknowledged == acknowledged) {
                return None;
            }
            let written = Written { status: status.clone(), observed, since, acknowledged };
            let acknowledged = Acknowledged { all: acknowledged, count };
            Some(Due { key: key.clone(), written, acknowledged })
        })
    }
}

async fn write_one(cluster: &Cluster, published: &Published, due: &Due) -> Result<(), KubernetesError> {
    let Some(object) = published.world.get(&due.key) else { return Ok(()) };
    let info = due.key.kind.info();
    let version = object.api_version().rsplit('/').next().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(info.group, version, info.name));
    let api: Api<DynamicObject> = if due.key.namespace.is_empty() {
        Api::all_with(cluster.client.clone(), &resource)
    } else {
        Api::namespaced_with(cluster.client.clone(), &due.key.namespace, &resource)
    };
    let what = format!("the status of {} cannot be written", due.key);
    let Some(found) = api.get_opt(&due.key.name).await.map_err(failed(what.clone()))? else { return Ok(()) };
    let before = found.data.get("status").cloned().unwrap_or(Value::Null);
    let context = Context {
        before: &before,
        generation: due.written.observed,
        now: k8s_openapi::jiff::Timestamp::now().to_string(),
        acknowledged: due.acknowledged,
    };
    let Some(after) = render(info.group, &due.written.status, &context) else { return Ok(()) };
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"resourceVersion": found.metadata.resource_version}, "status": after,
    });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(&due.key.name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // Gone, or changed in between: its next state brings its next status.
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(failed(what)(error)),
    }
}
