//! Events for what a person must act on: `kubectl describe` shows them below the object.
//!
//! They are not written by kube's recorder, which forgets within minutes and with each leader, and does not tell apart two notes on one
//! object.
//!
//! Invariants: a problem has one Event, with a name that is made of the problem, so that every leader finds it; it is counted up while
//! the problem lasts, no more often than every [`AGAIN`]; an object without a problem gets none.

mod problems;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::events::v1::Event, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use self::problems::{Problem, Subject, problems};
use super::{Cluster, KubernetesError, failed, gateways::Gateways, is_status};
use crate::published::Published;

/// A problem that ends sooner is nobody's: objects are applied in any order.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two writes of a problem that is told.
const AGAIN: Duration = Duration::from_secs(15 * 60);
/// Between two writes about one object whose problem changes.
const PAUSE: Duration = Duration::from_secs(60);
/// A problem that is gone is remembered for so long: if it comes back it is not told more often for it.
const FORGOTTEN: Duration = Duration::from_secs(2 * 15 * 60);
/// Writes of one round; the rest waits for the next.
const A_ROUND: usize = 20;
/// Objects with problems that are remembered; more are not told of.
const REMEMBERED: usize = 4096;

/// What was told of which object.
#[derive(Default)]
pub(crate) struct Events {
    known: BTreeMap<Subject, Known>,
}

/// Of one object and one reason.
struct Known {
    /// Of the Event that tells it as it is.
    name: String,
    /// Since when there is something to tell, without a break; `None` while there is nothing.
    since: Option<Instant>,
    seen: Instant,
    told: Option<Told>,
}

/// An Event as it is there.
#[derive(Clone)]
struct Told {
    name: String,
    count: i32,
    when: Instant,
}

impl Events {
    /// Writes what is news or lasts.
    pub(crate) async fn write(
        &mut self,
        cluster: &Cluster,
        published: &Published,
        gateways: &Gateways,
        now: Instant,
    ) -> Result<(), KubernetesError> {
        let problems = problems(published, gateways);
        self.see(&problems, now);
        let mut writes = 0;
        for problem in problems {
            let Some(known) = self.known.get_mut(&problem.subject) else { continue };
            if writes == A_ROUND || !known.is_due(now) {
                continue;
            }
            writes += 1;
            known.told = Some(tell(cluster, &problem, known.told.as_ref(), now).await?);
        }
        Ok(())
    }

    /// Notes which problems there are; those for which there is no room are left out.
    fn see(&mut self, problems: &[Problem], now: Instant) {
        self.known.retain(|_, known| now.saturating_duration_since(known.seen) < FORGOTTEN);
        for problem in problems {
            if self.known.len() >= REMEMBERED && !self.known.contains_key(&problem.subject) {
                continue;
            }
            let new = Known { name: String::new(), since: None, seen: now, told: None };
            let known = self.known.entry(problem.subject.clone()).or_insert(new);
            known.since.get_or_insert(now);
            (known.name, known.seen) = (problem.name(), now);
        }
        for gone in self.known.values_mut().filter(|known| known.seen != now) {
            gone.since = None;
        }
    }
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        let lasts = |since| now.saturating_duration_since(since) >= PATIENCE;
        self.since.is_some_and(lasts)
            && self.told.as_ref().is_none_or(|told| {
                let pause = if told.name == self.name { AGAIN } else { PAUSE };
                now.saturating_duration_since(told.when) >= pause
            })
    }
}

/// Writes or counts up a problem's Event.
async fn tell(
    cluster: &Cluster,
    problem: &Problem,
    told: Option<&Told>,
    now: Instant,
) -> Result<Told, KubernetesError> {
    let name = problem.name();
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), problem.event_namespace());
    let count = told.filter(|told| told.name == name).map(|told| told.count);
    let written = match count {
        Some(count) => count_up(&api, &name, count).await,
        None => create(&api, &problem.event(&name, &cluster.pod)).await,
    };
    let again = match (written, count) {
        (Ok(count), _) => return Ok(Told { name, count, when: now }),
        // It expires after an hour, as a rule.
        (Err(error), Some(_)) if is_status(&error, 404) => {
            create(&api, &problem.event(&name, &cluster.pod)).await
        }
        // An earlier leader has told of it.
        (Err(error), None) if is_status(&error, 409) => {
            let (count, age) = found(&api, &name).await.map_err(not_written(problem))?;
            if age < AGAIN {
                return Ok(Told { name, count, when: now.checked_sub(age).unwrap_or(now) });
            }
            count_up(&api, &name, count).await
        }
        (Err(error), _) => Err(error),
    };
    match again {
        Ok(count) => Ok(Told { name, count, when: now }),
        // A namespace that is going takes nothing new; what is refused once is refused again.
        Err(error) if [403, 404, 422].iter().any(|code| is_status(&error, *code)) => {
            tracing::warn!(%error, about = %problem.subject, "an Event cannot be written");
            Ok(Told { name, count: 1, when: now })
        }
        Err(error) => Err(not_written(problem)(error)),
    }
}

fn not_written(problem: &Problem) -> impl FnOnce(kube::Error) -> KubernetesError {
    failed(format!("an Event about {} cannot be written", problem.subject))
}

async fn create(api: &Api<Event>, event: &Event) -> Result<i32, kube::Error> {
    api.create(&PostParams::default(), event).await.map(|_| 1)
}

async fn count_up(api: &Api<Event>, name: &str, count: i32) -> Result<i32, kube::Error> {
    let count = count.saturating_add(1);
    let patch = json!({"series": {"count": count, "lastObservedTime": MicroTime(Timestamp::now())}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| count)
}

/// How often an Event was seen that is there, and how long ago.
async fn found(api: &Api<Event>, name: &str) -> Result<(i32, Duration), kube::Error> {
    // The right to write Events is no right to read them; a patch of nothing changes nothing and answers with what is there.
    let event = api.patch(name, &PatchParams::default(), &Patch::Merge(&json!({}))).await?;
    let Event { series, event_time, .. } = event;
    let count = series.as_ref().map_or(1, |series| series.count);
    let last = series.map(|series| series.last_observed_time).or(event_time);
    let age = last.map(|MicroTime(last)| Timestamp::now().duration_since(last));
    Ok((count, age.map_or(AGAIN, |age| Duration::try_from(age).unwrap_or_default())))
}

#[cfg(test)]
mod tests;
