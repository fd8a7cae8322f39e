//! What is nearly one of our kinds, or has nearly the fields of `metadata`.
//!
//! Invariant: a diagnostic here names no object, because the object that was meant may have any name; whoever keeps last good forms
//! then takes none of the text's objects for deleted.

use super::{Reader, TypeName};
use crate::codes;
use crate::decode::closest;
use crate::diagnostic::{Diagnostic, Refused, Source};
use crate::kind::KindInfo;
use crate::metadata;
use crate::yaml::{Node, Value};

impl Reader {
    /// Says what was meant. It may have been any object of the text, so the diagnostic names none.
    pub(super) fn misspelt(&mut self, node: &Node, name: &TypeName, meant: &KindInfo) {
        let group = name.group_and_version().0;
        let at =
            node.get(if meant.group == group { "kind" } else { "apiVersion" }).map_or(node.at, |at| at.at);
        let written = if group.is_empty() { name.kind.clone() } else { format!("{} of {group}", name.kind) };
        let known = if meant.group == group { meant.name } else { meant.group };
        let diagnostic =
            Diagnostic::error(codes::MISSPELT_KIND, self.source(at), format!("there is no kind {written}"))
                .expecting(format!("did you mean `{known}`?"))
                .refusing(Refused::Object);
        self.parsed.diagnostics.push(diagnostic);
    }

    /// Says which fields `metadata` has that no object has. Which object was meant is not known then, so none is named.
    pub(super) fn misspelt_metadata(&mut self, node: &Node, info: &KindInfo) -> bool {
        let Some(Node { value: Value::Map(entries), .. }) = node.get("metadata") else { return false };
        let unknown = entries.iter().filter(|entry| !metadata::FIELDS.contains(&&*entry.key));
        let said = unknown.map(|entry| {
            let field = format!("metadata.{}", entry.key).into();
            let at = Source { field, ..self.source(entry.key_at) };
            let what = format!("unknown field; the {} is not read", info.name);
            let unknown = Diagnostic::error(codes::UNKNOWN_FIELD, at, what).refusing(Refused::Object);
            match closest(&entry.key, metadata::FIELDS.iter().copied()) {
                Some(name) => unknown.expecting(format!("did you mean `{name}`?")),
                None => unknown,
            }
        });
        let said: Vec<_> = said.collect();
        let found = !said.is_empty();
        self.parsed.diagnostics.extend(said);
        found
    }
}
