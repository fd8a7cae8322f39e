//! What a policy applies to: workloads by label, or an object by reference.

use std::collections::BTreeMap;

use crate::decode::{Cursor, Fields, name, text};
use crate::diagnostic::Source;

/// What a policy applies to. Without labels and targets: its namespace, or, in the root namespace, the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Labels of workloads.
    pub match_labels: BTreeMap<String, String>,
    /// Objects.
    pub targets: Vec<TargetRef>,
}

/// An object that a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// Where it starts.
    pub at: Source,
    /// Group; empty for core.
    pub group: String,
    /// Kind: `Gateway`, `GatewayClass`, `Service`, `ServiceEntry`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// `selector.matchLabels`.
pub(super) fn match_labels(o: &mut Fields<'_>, field: &str) -> BTreeMap<String, String> {
    o.opt(field, |value| value.object(|o| Some(o.map("matchLabels", text)))).unwrap_or_default()
}

/// `selector`, `targetRef` and `targetRefs`.
pub(super) fn selection(o: &mut Fields<'_>) -> Selection {
    o.at_most_one(&["selector", "targetRef", "targetRefs"]);
    let mut targets = o.list("targetRefs", target_ref);
    targets.extend(o.opt("targetRef", target_ref));
    Selection { match_labels: match_labels(o, "selector"), targets }
}

fn target_ref(value: Cursor<'_>) -> Option<TargetRef> {
    let at = value.source();
    value.object(|o| {
        Some(TargetRef {
            at,
            group: o.or("group", String::new(), text)?,
            kind: o.req("kind", name)?,
            name: o.req("name", name)?,
        })
    })
}
