//! The objects as the watches have told them.
//!
//! Invariants: a list takes effect when it is complete; an object that becomes unusable keeps its last good form and is named
//! in `Reading::kept`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leno_apis::{AnyObject, Diagnostic, ObjectRef};
use serde_json::Value;

use super::{Watched, watch::Event};
use crate::Reading;

/// All watches together.
#[derive(Debug, Default)]
pub(super) struct Held {
    watches: BTreeMap<Watched, HeldObjects>,
    changed: bool,
    /// Trouble of discovery (`None`) and of single watches.
    trouble: BTreeMap<Option<Watched>, String>,
    told: Option<String>,
}

#[derive(Debug, Default)]
struct HeldObjects {
    objects: BTreeMap<ObjectRef, HeldObject>,
    listing: Option<BTreeMap<ObjectRef, HeldObject>>,
    complete: bool,
}

#[derive(Clone, Debug)]
struct HeldObject {
    object: Arc<AnyObject>,
    diagnostics: Vec<Diagnostic>,
    kept: bool,
}

impl Held {
    /// Something is watched from now on.
    pub(super) fn expect(&mut self, watched: Watched) {
        self.watches.entry(watched).or_default();
    }

    /// Whether everything that is watched has been listed.
    pub(super) fn is_complete(&self) -> bool {
        self.watches.values().all(|watch| watch.complete)
    }

    /// Whether something changed since the last reading.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Remembers what is wrong with a watch (`None`: with discovery), or that nothing is.
    pub(super) fn trouble(&mut self, watched: Option<Watched>, trouble: Option<String>) {
        match trouble {
            Some(trouble) => self.trouble.insert(watched, trouble),
            None => self.trouble.remove(&watched),
        };
    }

    /// What to say of troubles, if that is news: `Some(None)` when all is well again.
    pub(super) fn news_of_trouble(&mut self) -> Option<Option<String>> {
        let now = self.trouble.values().cloned().collect::<Vec<_>>().join("; ");
        let now = Some(now).filter(|now| !now.is_empty());
        if now == self.told {
            return None;
        }
        self.told.clone_from(&now);
        Some(now)
    }

    /// Takes an event of a watch.
    pub(super) fn take(&mut self, watched: &Watched, event: Event) {
        let trouble = if let Event::Trouble(why) = &event { Some(why.clone()) } else { None };
        self.trouble(Some(watched.clone()), trouble);
        let held = self.watches.entry(watched.clone()).or_default();
        self.changed |= match event {
            Event::Trouble(_) => false,
            Event::Listing => {
                held.listing = Some(BTreeMap::new());
                false
            }
            Event::Listed(json) => {
                if let Some((name, object)) = read(&json, |name| held.objects.get(name)) {
                    held.listing.get_or_insert_default().insert(name, object);
                }
                false
            }
            Event::Complete => {
                held.objects = held.listing.take().unwrap_or_default();
                held.complete = true;
                true
            }
            Event::Put(json) => match read(&json, |name| held.objects.get(name)) {
                Some((name, object)) => {
                    let same =
                        held.objects.get(&name).is_some_and(|old| Arc::ptr_eq(&old.object, &object.object));
                    held.objects.insert(name, object);
                    !same
                }
                None => false,
            },
            Event::Gone(json) => {
                read(&json, |_| None).is_some_and(|(name, _)| held.objects.remove(&name).is_some())
            }
        };
    }

    /// The present state.
    pub(super) fn reading(&mut self) -> Reading {
        self.changed = false;
        let mut reading = Reading::default();
        let mut kept = BTreeSet::new();
        for (name, held) in self.watches.values().flat_map(|watch| &watch.objects) {
            reading.objects.insert(name.clone(), held.object.clone());
            reading.diagnostics.extend(held.diagnostics.iter().cloned());
            if held.kept {
                kept.insert(name.clone());
            }
        }
        reading.kept = kept;
        reading
    }
}

/// An object and its name. One that is as it was keeps its old handle, so that comparing readings costs nothing.
fn read<'a>(
    json: &Value,
    before: impl FnOnce(&ObjectRef) -> Option<&'a HeldObject>,
) -> Option<(ObjectRef, HeldObject)> {
    let parsed = leno_apis::parse_json("", json);
    let object = parsed.objects.into_iter().next()?;
    let name = object.reference();
    let diagnostics = parsed.diagnostics;
    let old = before(&name);
    let refused = matches!(&*object, AnyObject::Refused(_));
    let held = match old {
        Some(old) if refused && !matches!(&*old.object, AnyObject::Refused(_)) => {
            HeldObject { object: old.object.clone(), diagnostics, kept: true }
        }
        Some(old) if old.object == object => {
            HeldObject { object: old.object.clone(), diagnostics, kept: false }
        }
        _ => HeldObject { object, diagnostics, kept: false },
    };
    Some((name, held))
}

#[cfg(test)]
mod tests {
    use leno_apis::Kind;
    use serde_json::json;

    use super::*;

    fn all(kind: Kind) -> Watched {
        Watched { kind, namespace: None }
    }

    fn service(name: &str, port: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": port}]}})
    }

    fn held() -> Held {
        let mut held = Held::default();
        held.expect(all(Kind::Service));
        for event in [
            Event::Listing,
            Event::Listed(service("a", json!(80))),
            Event::Listed(service("b", json!(80))),
            Event::Complete,
        ] {
            held.take(&all(Kind::Service), event);
        }
        held
    }

    fn names(reading: &Reading) -> Vec<&str> {
        reading.objects.keys().map(|name| &*name.name).collect()
    }

    #[test]
    fn a_list_takes_effect_when_it_is_complete() {
        let mut held = held();
        assert_eq!(names(&held.reading()), ["a", "b"]);
        held.take(&all(Kind::Service), Event::Listing);
        held.take(&all(Kind::Service), Event::Listed(service("b", json!(80))));
        held.take(&all(Kind::Service), Event::Trouble("the connection broke".to_owned()));
        assert_eq!(names(&held.reading()), ["a", "b"], "half a list removes nothing");
        held.take(&all(Kind::Service), Event::Listing);
        held.take(&all(Kind::Service), Event::Listed(service("b", json!(80))));
        held.take(&all(Kind::Service), Event::Complete);
        assert_eq!(names(&held.reading()), ["b"]);
    }

    #[test]
    fn nothing_is_complete_before_every_kind_is() {
        let mut held = held();
        assert!(held.is_complete());
        held.expect(all(Kind::Pod));
        assert!(!held.is_complete());
        held.take(&all(Kind::Pod), Event::Trouble("forbidden".to_owned()));
        assert!(!held.is_complete(), "an error is no empty list");
        assert_eq!(held.news_of_trouble(), Some(Some("forbidden".to_owned())));
        assert_eq!(held.news_of_trouble(), None, "it is said once");
        held.take(&all(Kind::Pod), Event::Complete);
        assert_eq!(held.news_of_trouble(), Some(None));
    }

    #[test]
    fn an_object_that_becomes_unusable_keeps_its_last_good_form() {
        let mut held = held();
        let good = held.reading();
        held.take(&all(Kind::Service), Event::Put(service("a", json!("eighty"))));
        let reading = held.reading();
        assert_eq!(reading.objects, good.objects);
        assert_eq!(reading.kept.len(), 1);
        held.take(&all(Kind::Service), Event::Gone(service("a", json!("eighty"))));
        assert_eq!(names(&held.reading()), ["b"], "and goes when it is deleted");
    }

    #[test]
    fn an_object_that_is_as_it_was_is_no_change() {
        let mut held = held();
        let before = held.reading();
        held.take(&all(Kind::Service), Event::Put(service("a", json!(80))));
        assert!(!held.changed());
        let name = before.objects.keys().next().unwrap();
        assert!(Arc::ptr_eq(&before.objects[name], &held.reading().objects[name]));
    }
}
