//! What one unit of compilation produces.
//!
//! Invariant: no two units produce the same resource; several may add to the status of one object.

use std::collections::BTreeMap;

use leno_apis::{AnyObject, Diagnostic, Object, Source};
use leno_model::{Origin, Resource, ResourceKey};

use crate::{exports::ExportedService, gateway::GatewaySummary, status::ObjectStatus, world::ObjectKey};

/// What one unit produces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Output {
    pub(crate) resources: BTreeMap<ResourceKey, Resource>,
    pub(crate) statuses: BTreeMap<ObjectKey, ObjectStatus>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) export: Option<ExportedService>,
    pub(crate) gateway: Option<GatewaySummary>,
}

impl Output {
    /// Adds a resource.
    pub(crate) fn resource(&mut self, resource: Resource) {
        self.resources.insert(resource.key(), resource);
    }

    /// Adds a finding about an object.
    pub(crate) fn report(&mut self, object: &AnyObject, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic.about(object.reference()));
    }

    /// Adds a finding about an object of a known kind.
    pub(crate) fn report_on<S>(&mut self, object: &Object<S>, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic.about(object.reference()));
    }

    /// The status of an object, to add to.
    pub(crate) fn status(&mut self, key: ObjectKey) -> &mut ObjectStatus {
        self.statuses.entry(key).or_default()
    }
}

/// The key of an object of a known kind.
pub(crate) fn key_of<S>(object: &Object<S>) -> ObjectKey {
    ObjectKey::new(object.kind, object.namespace(), object.name())
}

/// A place of an object, as the model cites it.
pub(crate) fn origin<S>(object: &Object<S>, at: &Source) -> Origin {
    let place = if at.line == 0 { "".into() } else { format!("{}:{}", at.file, at.line).into() };
    Origin {
        kind: object.kind.info().name.into(),
        namespace: object.namespace().into(),
        name: object.name().into(),
        field: at.field.clone(),
        place,
    }
}

/// Oldest first, then by namespace and name: the order in which conflicts are won.
///
/// Files carry no age; their objects are as old as any and go by name.
pub(crate) fn age_order<S>(object: &Object<S>) -> (&str, &str, &str) {
    let created = object.metadata.creation_timestamp.as_deref().unwrap_or("");
    (created, object.namespace(), object.name())
}
