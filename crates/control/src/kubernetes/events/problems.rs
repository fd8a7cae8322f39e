//! What a person must act on, object by object.
//!
//! Invariant: one problem an object and reason, in an order that does not change; its name changes with its text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::core::ObjectMeta;
use leno_apis::{AnyObject, Diagnostic, ObjectRef, Severity};
use leno_compile::ObjectKey;
use xxhash_rust::xxh64::xxh64;

use crate::{kubernetes::gateways::Gateways, published::Published};

/// Who tells.
const REPORTER: &str = "leno.dev/control";
/// Bytes of a note; the API takes no more.
const LONGEST: usize = 1024;
/// Bytes of an object's name in its Events' names.
const LONGEST_NAME: usize = 200;

/// Why an Event is written. `kubectl describe` shows the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// Something of it is withheld.
    Refused,
    /// Its present text is broken; its last good form is in force.
    LastGoodFormKept,
    /// A Gateway of ours is not run.
    NotRun,
}

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::LastGoodFormKept => "LastGoodFormKept",
            Self::NotRun => "NotRun",
        }
    }

    /// What was tried with the object.
    fn action(self) -> &'static str {
        match self {
            Self::Refused | Self::LastGoodFormKept => "Read",
            Self::NotRun => "Run",
        }
    }
}

/// What a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    object: ObjectKey,
    reason: Reason,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)
    }
}

/// Something that a person must act on.
pub(super) struct Problem {
    pub(super) subject: Subject,
    api_version: String,
    uid: Option<String>,
    note: String,
}

/// All problems there are.
pub(super) fn problems(published: &Published, gateways: &Gateways) -> Vec<Problem> {
    let troubles = gateways.troubles().filter_map(|(key, why)| {
        let subject = Subject { object: key.clone(), reason: Reason::NotRun };
        Some(Problem::of(published.world.get(key)?, subject, why.to_owned()))
    });
    troubles.chain(refused(published)).collect()
}

fn refused(published: &Published) -> impl Iterator<Item = Problem> {
    let all = published.reading.diagnostics.iter().chain(&published.compiled.diagnostics);
    let mut errors: BTreeMap<&ObjectRef, BTreeSet<String>> = BTreeMap::new();
    for diagnostic in all.filter(|diagnostic| diagnostic.severity == Severity::Error) {
        if let Some(object) = &diagnostic.object {
            errors.entry(object).or_default().insert(text(diagnostic));
        }
    }
    errors.into_iter().filter_map(move |(reference, texts)| {
        let key = ObjectKey::from_reference(reference)?;
        let object = published.world.get(&key)?;
        let texts = texts.into_iter().collect::<Vec<_>>().join("; ");
        let (reason, note) = if published.reading.kept.contains(reference) {
            (Reason::LastGoodFormKept, format!("its last good form stays in force: {texts}"))
        } else {
            (Reason::Refused, texts)
        };
        Some(Problem::of(object, Subject { object: key, reason }, note))
    })
}

fn text(diagnostic: &Diagnostic) -> String {
    let Diagnostic { code, severity: _, object: _, at, message, expected, effect: _ } = diagnostic;
    let mut text = message.clone();
    if !at.field.is_empty() {
        text = format!("{}: {text}", at.field);
    }
    if let Some(expected) = expected {
        text = format!("{text}; {expected}");
    }
    format!("{text} [{code}]")
}

impl Problem {
    fn of(object: &AnyObject, subject: Subject, note: String) -> Self {
        let (api_version, uid) = (object.api_version().to_owned(), object.metadata().uid.clone());
        Self { subject, api_version, uid, note: shortened(note) }
    }

    /// Of its Event: the same for the same problem of the same object, whoever leads.
    pub(super) fn name(&self) -> String {
        let Self { subject: Subject { object, reason }, api_version: _, uid, note } = self;
        let what = format!("{object} {} {} {note}", uid.as_deref().unwrap_or_default(), reason.word());
        // Names are ASCII.
        let name: String = object.name.chars().take(LONGEST_NAME).collect();
        format!("{}.{:016x}", name.trim_end_matches(['-', '.']), xxh64(what.as_bytes(), 0))
    }

    /// Events about objects without a namespace are in this one.
    pub(super) fn event_namespace(&self) -> &str {
        let namespace = &*self.subject.object.namespace;
        if namespace.is_empty() { "default" } else { namespace }
    }

    /// Its Event, when there is none yet.
    pub(super) fn event(&self, name: &str, pod: &str) -> Event {
        let Subject { object, reason } = &self.subject;
        let regarding = ObjectReference {
            api_version: Some(self.api_version.clone()),
            kind: Some(object.kind.info().name.to_owned()),
            name: Some(object.name.to_string()),
            namespace: Some(object.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            uid: self.uid.clone(),
            ..ObjectReference::default()
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.event_namespace().to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(reason.action().to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(self.note.clone()),
            reason: Some(reason.word().to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(pod.to_owned()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        }
    }
}

/// What the API takes of a note.
fn shortened(mut note: String) -> String {
    if note.len() > LONGEST {
        let end = note.floor_char_boundary(LONGEST - '…'.len_utf8());
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_two_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("ä".repeat(LONGEST));
        assert!(long.len() <= LONGEST && long.ends_with("ä…"), "{}", long.len());
    }
}
