//! What every object carries: name, namespace, labels, annotations, owners, age.
//!
//! Invariant: an object of a namespaced kind has a namespace ("default" when the text does not say).

use std::collections::BTreeMap;

use crate::decode::{Cursor, Fields, boolean, integer, name, text};

/// The part of `metadata` that a mesh has business with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Name; empty for a pod template.
    pub name: String,
    /// Namespace; absent for kinds that have none.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Identity given by the API server; absent in files.
    pub uid: Option<String>,
    /// RFC 3339 in UTC, so that text order is age order; absent in files.
    pub creation_timestamp: Option<String>,
    /// Set once the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Counts changes of the specification.
    pub generation: Option<i64>,
    /// Version of the object in the API server.
    pub resource_version: Option<String>,
    /// The objects it belongs to.
    pub owner_references: Vec<OwnerReference>,
}

/// The object that another belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Whether it is the managing owner.
    pub controller: bool,
}

impl Metadata {
    /// The namespace; empty for kinds that have none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// A label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// Every field of `metadata`
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta>).
pub(crate) const FIELDS: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

/// Decodes `metadata` of an object; fields that only the API server uses are ignored by design.
pub(crate) fn metadata(value: Cursor<'_>, namespaced: bool) -> Option<Metadata> {
    value.object_partly(|o| {
        let name = o.req("name", name);
        let namespace = o.opt("namespace", text).filter(|namespace| !namespace.is_empty());
        let mut metadata = common(o);
        metadata.name = name?;
        metadata.namespace = namespaced.then(|| namespace.unwrap_or_else(|| "default".to_owned()));
        Some(metadata)
    })
}

/// Decodes `metadata` of a pod template, which has no name.
pub(crate) fn template_metadata(value: Cursor<'_>) -> Option<Metadata> {
    value.object(|o| {
        let metadata = common(o);
        FIELDS.iter().for_each(|field| o.ignore(field));
        Some(metadata)
    })
}

fn common(o: &mut Fields<'_>) -> Metadata {
    Metadata {
        name: String::new(),
        namespace: None,
        labels: o.map("labels", text),
        annotations: o.map("annotations", text),
        uid: o.opt("uid", text),
        creation_timestamp: o.opt("creationTimestamp", text),
        deletion_timestamp: o.opt("deletionTimestamp", text),
        generation: o.opt("generation", integer(i64::MIN, i64::MAX)),
        resource_version: o.opt("resourceVersion", text),
        owner_references: o.list("ownerReferences", owner),
    }
}

fn owner(value: Cursor<'_>) -> Option<OwnerReference> {
    value.object_partly(|o| {
        Some(OwnerReference {
            api_version: o.req("apiVersion", text)?,
            kind: o.req("kind", text)?,
            name: o.req("name", text)?,
            controller: o.or("controller", false, boolean)?,
        })
    })
}
