//! What the replicas of one control plane tell each other: whether the proxies of each have what an object says.
//!
//! Each replica counts its publications for itself. So it is asked about an object in the [`Form`] that the asker has in force, and
//! answers for the form that it has in force itself.
//!
//! Invariant: "acknowledged" is said only of a form that is in force here, when every proxy that is connected here has acknowledged
//! a publication with it.

mod answer;
mod ask;

use std::hash::{Hash as _, Hasher as _};

use leno_apis::Kind;
use leno_compile::{ObjectKey, ObjectStatus};
use leno_xds::proto::replicas::ObjectForm;
use xxhash_rust::xxh64::Xxh64;

pub(crate) use self::{
    answer::ReplicasService,
    ask::{Said, ask, others},
};
use crate::published::Published;

/// Objects in one question.
pub(crate) const MOST: usize = 500;

/// An object as a control plane has it in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    uid: String,
    generation: i64,
    /// Hash of its status: other objects may change what it means.
    status: u64,
}

impl Form {
    /// The form that is in force; `None` when the object is not there or nothing is to be said of it.
    pub(crate) fn of(published: &Published, key: &ObjectKey) -> Option<Self> {
        let metadata = published.world.get(key)?.metadata();
        let status = digest(published.compiled.statuses.get(key)?);
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            status,
        })
    }

    /// For another replica.
    pub(crate) fn to_proto(&self, key: &ObjectKey) -> ObjectForm {
        let (Self { uid, generation, status }, info) = (self.clone(), key.kind.info());
        ObjectForm {
            group: info.group.to_owned(),
            kind: info.name.to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid,
            generation,
            status,
        }
    }

    /// From another replica; `None` for a kind that is not known here.
    fn from_proto(form: ObjectForm) -> Option<(ObjectKey, Self)> {
        let ObjectForm { group, kind, namespace, name, uid, generation, status } = form;
        let key = ObjectKey::new(Kind::find(&group, &kind)?.kind, &namespace, &name);
        Some((key, Self { uid, generation, status }))
    }
}

/// The same in every process of one release.
fn digest(status: &ObjectStatus) -> u64 {
    let mut hasher = Xxh64::new(0);
    status.hash(&mut hasher);
    hasher.finish()
}
