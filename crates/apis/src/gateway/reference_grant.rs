//! ReferenceGrant: permission to refer to objects of its namespace from elsewhere.
//!
//! Invariant: an entry that cannot be read grants nothing.

use crate::decode::{Cursor, Fields, name, text};
use crate::diagnostic::Rule;

/// A ReferenceGrant.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGrant {
    /// Who may refer.
    pub from: Vec<Rule<GrantFrom>>,
    /// To what.
    pub to: Vec<Rule<GrantTo>>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// Group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// To what one may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// Group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; absent means all.
    pub name: Option<String>,
}

pub(crate) fn reference_grant(o: &mut Fields<'_>) -> Option<ReferenceGrant> {
    o.req("spec", |value| {
        value.object(|o| Some(ReferenceGrant { from: o.rules("from", from), to: o.rules("to", to) }))
    })
}

fn from(value: Cursor<'_>) -> Option<GrantFrom> {
    value.object(|o| {
        Some(GrantFrom {
            group: o.req("group", text)?,
            kind: o.req("kind", name)?,
            namespace: o.req("namespace", name)?,
        })
    })
}

fn to(value: Cursor<'_>) -> Option<GrantTo> {
    value.object(|o| {
        Some(GrantTo {
            group: o.req("group", text)?,
            name: o.opt("name", text).filter(|name| !name.is_empty()),
            kind: o.req("kind", name)?,
        })
    })
}
