//! The user's objects, what is wrong with them, and what their authors are told.

use std::collections::BTreeMap;

use leno_apis::{AnyObject, Diagnostic};
use leno_compile::{Condition, ListenerStatus, ObjectKey, ObjectStatus, ParentName, ParentStatus};
use serde_json::{Map, Value, json};

use crate::published::Published;

/// What reading and compiling found, by place.
pub(super) fn all_diagnostics(published: &Published) -> impl Iterator<Item = &Diagnostic> {
    published.reading.diagnostics.iter().chain(&published.compiled.diagnostics)
}

/// `/v1/diagnostics`
pub(super) fn diagnostics(published: &Published) -> Value {
    let mut all: Vec<&Diagnostic> = all_diagnostics(published).collect();
    all.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
    json!({ "generation": published.generation, "diagnostics": all })
}

/// `/v1/objects?kind=&namespace=&name=`
pub(super) fn objects(published: &Published, query: &BTreeMap<String, String>) -> Value {
    let is =
        |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let found = published.world.iter().filter(|object| {
        let metadata = object.metadata();
        is("kind", object.kind().info().name)
            && is("namespace", metadata.namespace())
            && is("name", &metadata.name)
    });
    let objects: Vec<Value> = found.map(|object| of(published, object)).collect();
    json!({ "generation": published.generation, "objects": objects })
}

fn of(published: &Published, object: &AnyObject) -> Value {
    let (info, metadata, source) = (object.kind().info(), object.metadata(), object.source());
    let status = published.compiled.statuses.get(&ObjectKey::of(object));
    let reference = object.reference();
    let diagnostics: Vec<&Diagnostic> =
        all_diagnostics(published).filter(|it| it.object.as_ref() == Some(&reference)).collect();
    json!({
        "group": info.group,
        "kind": info.name,
        "namespace": metadata.namespace.as_deref(),
        "name": metadata.name,
        "labels": metadata.labels,
        "file": source.file,
        "line": source.line,
        "refused": matches!(object, AnyObject::Refused(_)),
        "kept": published.reading.kept.contains(&reference),
        "status": status.map(status_json),
        "diagnostics": diagnostics,
    })
}

fn status_json(status: &ObjectStatus) -> Value {
    let ObjectStatus { conditions, parents, listeners } = status;
    let parents = parents.iter().map(|(name, ParentStatus { conditions })| {
        let ParentName { group, kind, namespace, name, section_name, port } = name;
        json!({
            "parentRef": {
                "group": group, "kind": kind, "namespace": namespace, "name": name,
                "sectionName": section_name, "port": port,
            },
            "conditions": conditions_json(conditions),
        })
    });
    let listeners = listeners.iter().map(|(name, listener)| {
        let ListenerStatus { attached_routes, supported_kinds, conditions } = listener;
        let kinds = supported_kinds.iter().map(|(group, kind)| json!({ "group": group, "kind": kind }));
        json!({
            "name": name,
            "attachedRoutes": attached_routes,
            "supportedKinds": kinds.collect::<Vec<_>>(),
            "conditions": conditions_json(conditions),
        })
    });
    let mut json = Map::new();
    json.insert("conditions".into(), conditions_json(conditions));
    json.insert("parents".into(), parents.collect());
    json.insert("listeners".into(), listeners.collect());
    Value::Object(json)
}

fn conditions_json(conditions: &BTreeMap<&'static str, Condition>) -> Value {
    let all = conditions.iter().map(|(name, Condition { status, reason, message })| {
        let status = if *status { "True" } else { "False" };
        json!({ "type": name, "status": status, "reason": reason, "message": message })
    });
    all.collect()
}
