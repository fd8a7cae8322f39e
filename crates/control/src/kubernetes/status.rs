//! Writes what the compiler has to say to each object's author into the object's status.
//!
//! Invariants: a status is written only when it differs from what is there; other controllers' entries are kept; a transition
//! time changes only with its condition. Whether a Gateway that we run is programmed, those say who run it. That proxies have it is
//! said when this replica's and all other replicas' have it, and not taken back: who connects later is given the newest.

mod render;

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use leno_compile::{
    ObjectKey, ObjectStatus,
    status::{ACCEPTED, PROGRAMMED},
};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(super) use self::render::CONTROLLER;
use self::render::{Acknowledged, Context, render};
use super::{
    Cluster, KubernetesError, MANAGER, failed,
    gateways::{Gateways, Programmed},
    is_status,
};
use crate::{
    api::Api as Views,
    published::Published,
    replicas::{self, Form},
    rollout::{Attendance, Reach},
};

/// Writes under way at a time.
const AT_A_TIME: usize = 8;
/// Writes of one round; the rest waits for the next.
const A_ROUND: usize = 200;
/// Between two writes of one status that differ only in why not all proxies have it.
const PAUSE: Duration = Duration::from_secs(10);

/// The groups whose objects have a status that is ours to write.
const GROUPS: [&str; 3] = ["gateway.networking.k8s.io", "networking.istio.io", "security.istio.io"];

/// What was written last.
#[derive(Default)]
pub(crate) struct Statuses {
    attendance: Attendance,
    written: BTreeMap<ObjectKey, Written>,
}

/// One object's status as it was written.
struct Written {
    /// Of the object: another one of the same name has nothing of it.
    uid: Option<String>,
    status: ObjectStatus,
    /// The object's generation that it speaks of.
    observed: Option<i64>,
    /// The publication since which that generation is in force.
    since: u64,
    acknowledged: Acknowledged,
    when: Instant,
}

/// A status that has to be written.
struct Due {
    key: ObjectKey,
    /// What other replicas are asked about.
    form: Form,
    written: Written,
    /// What was written of the same, apart from how far proxies are, and when.
    before: Option<(Acknowledged, Instant)>,
    /// Whether nothing was written of this object since this replica leads.
    first: bool,
}

impl Statuses {
    /// Writes what differs from what was written before.
    pub(crate) async fn write(
        &mut self,
        cluster: &Cluster,
        views: &Views,
        published: &Published,
        gateways: &Gateways,
    ) -> Result<(), KubernetesError> {
        self.written.retain(|key, _| published.compiled.statuses.contains_key(key));
        let here = self.attendance.look(&views.sessions, published);
        let mut due = self.due(published, gateways, here);
        ask_others(cluster, views, published, &mut due).await;
        due.retain(Due::is_news);
        due.truncate(A_ROUND);
        let results: Vec<_> = stream::iter(due)
            .map(|due| async move { (write_one(cluster, published, &due).await, due) })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let mut problem = Ok(());
        for (result, due) in results {
            match result {
                Ok(acknowledged) => {
                    self.written.insert(due.key, Written { acknowledged, ..due.written });
                }
                Err(error) => problem = Err(error),
            }
        }
        problem
    }

    /// What may have to be written; of the proxies only `here` is known.
    fn due(&self, published: &Published, gateways: &Gateways, here: Reach) -> Vec<Due> {
        let due = published.compiled.statuses.iter().filter_map(|(key, status)| {
            if !GROUPS.contains(&key.kind.info().group) {
                return None;
            }
            let status = told(gateways, key, status)?;
            let metadata = published.world.get(key)?.metadata();
            let (uid, observed) = (metadata.uid.clone(), metadata.generation);
            let of_object = self.written.get(key).filter(|before| before.uid == uid);
            let same = of_object.filter(|before| before.observed == observed && before.status == *status);
            if same.is_some_and(|before| before.acknowledged.is_everywhere()) {
                return None;
            }
            let since = same.map_or(published.generation, |before| before.since);
            let acknowledged =
                if here.has(since) { Acknowledged::All(here.connected) } else { Acknowledged::Pending };
            Some(Due {
                key: key.clone(),
                form: Form::of(published, key)?,
                before: same.map(|before| (before.acknowledged.clone(), before.when)),
                first: of_object.is_none(),
                written: Written {
                    uid,
                    status: status.into_owned(),
                    observed,
                    since,
                    acknowledged,
                    when: Instant::now(),
                },
            })
        });
        due.collect()
    }
}

impl Due {
    fn is_news(&self) -> bool {
        let Written { acknowledged, when, .. } = &self.written;
        self.before.as_ref().is_none_or(|(before, written)| {
            let may = acknowledged.is_everywhere() || when.saturating_duration_since(*written) >= PAUSE;
            before != acknowledged && may
        })
    }
}

/// Asks the other replicas about what the proxies of this one have.
async fn ask_others(cluster: &Cluster, views: &Views, published: &Published, due: &mut [Due]) {
    let (namespace, service) = (&cluster.config.namespace, cluster.config.control());
    let others = replicas::others(&published.world, namespace, &service, &cluster.pod);
    let is_had = |due: &&mut Due| due.written.acknowledged.is_everywhere();
    let mut had: Vec<&mut Due> = due.iter_mut().filter(is_had).collect();
    if others.is_empty() || had.is_empty() {
        return;
    }
    // The oldest first: what they wait for, the newer ones wait for too.
    had.sort_by_key(|due| due.written.since);
    for due in had.iter_mut().skip(replicas::MOST) {
        due.written.acknowledged = Acknowledged::Pending;
    }
    had.truncate(replicas::MOST);
    let objects = had.iter().map(|due| due.form.to_proto(&due.key)).collect();
    let said = replicas::ask(others, &views.store, objects).await;
    for (due, acknowledged) in had.into_iter().zip(&said.acknowledged) {
        due.written.acknowledged.add(&said, *acknowledged);
    }
}

/// What an object's author is told, with what running it has shown; nothing as long as that is not known.
fn told<'s>(gateways: &Gateways, key: &ObjectKey, status: &'s ObjectStatus) -> Option<Cow<'s, ObjectStatus>> {
    let programmed = match gateways.programmed(key) {
        Programmed::AsCompiled => return Some(Cow::Borrowed(status)),
        Programmed::Unknown => return None,
        Programmed::Is(condition) => condition,
    };
    let mut status = status.clone();
    // What the compiler refuses is not programmed, whatever runs.
    if status.conditions.get(PROGRAMMED).is_none_or(|compiled| compiled.status) {
        status.conditions.insert(PROGRAMMED, programmed);
    }
    if let Some(rejected) = gateways.rejected(key) {
        status.conditions.insert(ACCEPTED, rejected);
    }
    Some(Cow::Owned(status))
}

/// Writes one; how far its proxies are then, by what is written there.
async fn write_one(
    cluster: &Cluster,
    published: &Published,
    due: &Due,
) -> Result<Acknowledged, KubernetesError> {
    let acknowledged = due.written.acknowledged.clone();
    let Some(object) = published.world.get(&due.key) else { return Ok(acknowledged) };
    let info = due.key.kind.info();
    let version = object.api_version().rsplit('/').next().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(info.group, version, info.name));
    let api: Api<DynamicObject> = if due.key.namespace.is_empty() {
        Api::all_with(cluster.client.clone(), &resource)
    } else {
        Api::namespaced_with(cluster.client.clone(), &due.key.namespace, &resource)
    };
    let what = format!("the status of {} cannot be written", due.key);
    let found = api.get_opt(&due.key.name).await.map_err(failed(what.clone()))?;
    let Some(found) = found else { return Ok(acknowledged) };
    let before = found.data.get("status").cloned().unwrap_or(Value::Null);
    let context = |acknowledged| Context {
        before: &before,
        generation: due.written.observed,
        now: k8s_openapi::jiff::Timestamp::now().to_string(),
        acknowledged,
    };
    // What the leader before this one has said is not taken back.
    if due.first && render(info.group, &due.written.status, &context(&Acknowledged::AsBefore)).is_none() {
        return Ok(Acknowledged::AsBefore);
    }
    let Some(after) = render(info.group, &due.written.status, &context(&acknowledged)) else {
        return Ok(acknowledged);
    };
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"resourceVersion": found.metadata.resource_version}, "status": after,
    });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(&due.key.name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(acknowledged),
        // Gone, or changed in between: its next state brings its next status.
        Err(error) if is_status(&error, 404) => Ok(acknowledged),
        Err(error) => Err(failed(what)(error)),
    }
}

#[cfg(test)]
mod tests;
