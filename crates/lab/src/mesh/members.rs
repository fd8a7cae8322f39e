//! What a cluster runs, what it should run, and the steps between the two.
//!
//! Invariants: a replica that is replaced goes only when all replicas of its owner that should run are ready; nothing that
//! is going is started again before it is gone.
//! Must not know: tasks, files, sockets.

use std::collections::BTreeMap;

use leno_model::WorkloadId;

use super::gateways::GatewaySeen;
use crate::embedded::{PodPlan, PodState};

/// Something that runs with a proxy of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// A replica of the user's.
    Pod(Box<PodPlan>),
    /// A gateway that no pod serves.
    Gateway(GatewaySeen),
}

/// Something that runs, as far as the steps depend on it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Now {
    pub(super) what: What,
    pub(super) state: PodState,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// To be started.
    pub(super) start: Vec<WorkloadId>,
    /// To be told to go.
    pub(super) drain: Vec<WorkloadId>,
    /// Running as they should, with other labels.
    pub(super) relabel: Vec<WorkloadId>,
}

impl What {
    /// What its replicas have in common.
    fn owner(&self) -> (&str, &str) {
        match self {
            Self::Pod(plan) => (plan.id.namespace.as_str(), &plan.owner.1),
            Self::Gateway(gateway) => (gateway.id.namespace.as_str(), &gateway.id.name),
        }
    }

    /// Whether a user means this one by a name: of the pod, or of its Deployment or the like.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let id = match self {
            Self::Pod(plan) => &plan.id,
            Self::Gateway(gateway) => &gateway.id,
        };
        let (namespace, owner) = self.owner();
        id.to_string() == name || name.split_once('/') == Some((namespace, owner))
    }

    fn runs_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pod(one), Self::Pod(other)) => one.runs_as(other),
            // A gateway opens and closes ports while it runs.
            (Self::Gateway(one), Self::Gateway(other)) => one.identity == other.identity,
            (Self::Pod(_), Self::Gateway(_)) | (Self::Gateway(_), Self::Pod(_)) => false,
        }
    }
}

/// The steps from what runs to what should.
pub(super) fn steps(wanted: &BTreeMap<WorkloadId, What>, now: &BTreeMap<WorkloadId, Now>) -> Steps {
    let mut steps = Steps::default();
    let settled = |owner: (&str, &str)| {
        let mut of_owner = wanted.iter().filter(|(_, what)| what.owner() == owner);
        of_owner.all(|(id, what)| {
            now.get(id).is_some_and(|member| {
                member.state.ready && !member.state.terminating && member.what.runs_as(what)
            })
        })
    };
    for (id, what) in wanted {
        match now.get(id) {
            None => steps.start.push(id.clone()),
            Some(member) if member.state.terminating || member.what == *what => {}
            Some(member) if member.what.runs_as(what) => steps.relabel.push(id.clone()),
            Some(_) => {
                // A name that must run otherwise has to go first, one of an owner at a time.
                let busy = now.iter().any(|(other, member)| {
                    other != id
                        && member.what.owner() == what.owner()
                        && (member.state.terminating || !member.state.ready)
                });
                let chosen = steps
                    .drain
                    .iter()
                    .any(|other| now.get(other).is_some_and(|member| member.what.owner() == what.owner()));
                if !busy && !chosen {
                    steps.drain.push(id.clone());
                }
            }
        }
    }
    for (id, member) in now {
        if !wanted.contains_key(id) && !member.state.terminating && settled(member.what.owner()) {
            steps.drain.push(id.clone());
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::embedded::{Addresses, Block, plan};

    fn wanted(text: &str) -> BTreeMap<WorkloadId, What> {
        let parsed = leno_apis::parse("test", text);
        let planned = plan(parsed.objects.iter(), &mut Addresses::new(Arc::new(Block::take().unwrap()), 0));
        planned.pods.into_iter().map(|pod| (pod.id.clone(), What::Pod(Box::new(pod)))).collect()
    }

    fn workload(kind: &str, replicas: u32, account: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  replicas: {replicas}\n  template: {{spec: \
             {{serviceAccountName: {account}, containers: [{{name: c}}]}}}}\n"
        )
    }

    fn all(what: &BTreeMap<WorkloadId, What>, ready: bool) -> BTreeMap<WorkloadId, Now> {
        let state = PodState { ready, terminating: false };
        what.iter().map(|(id, what)| (id.clone(), Now { what: what.clone(), state })).collect()
    }

    #[test]
    fn replaced_pods_stay_until_their_successors_are_ready() {
        let (old, new) = (wanted(&workload("Deployment", 2, "x")), wanted(&workload("Deployment", 2, "y")));
        let mut now = all(&old, true);
        let first = steps(&new, &now);
        assert_eq!((first.start.len(), first.drain.len()), (2, 0));
        now.extend(all(&new, false));
        assert!(steps(&new, &now).drain.is_empty());
        now.extend(all(&new, true));
        assert_eq!(steps(&new, &now).drain.len(), 2);
    }

    #[test]
    fn a_name_that_must_run_otherwise_goes_one_at_a_time() {
        let (old, new) = (wanted(&workload("StatefulSet", 3, "x")), wanted(&workload("StatefulSet", 3, "y")));
        let mut now = all(&old, true);
        let first = steps(&new, &now);
        assert_eq!(first.drain.len(), 1);
        now.get_mut(&first.drain[0]).unwrap().state.terminating = true;
        assert_eq!(steps(&new, &now), Steps::default());
    }

    #[test]
    fn what_nobody_wants_goes_at_once() {
        let now = all(&wanted(&workload("Deployment", 2, "x")), true);
        assert_eq!(steps(&BTreeMap::new(), &now).drain.len(), 2);
    }
}
