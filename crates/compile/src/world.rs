//! The objects of one cluster, by key.
//!
//! Invariant: a world is a value: cloning it is cheap (one pointer a kind), and a clone never changes.
//! Must not know: what objects mean.

use std::{collections::BTreeMap, fmt, sync::Arc};

use leno_apis::{AnyObject, Kind, ObjectRef};

/// Names an object of the world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of `kind namespace/name`.
    #[must_use]
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    #[must_use]
    pub fn of(object: &AnyObject) -> Self {
        let metadata = object.metadata();
        Self::new(object.kind(), metadata.namespace(), &metadata.name)
    }

    /// The key of a reference, if its kind is one that we recognise.
    #[must_use]
    pub fn from_reference(reference: &ObjectRef) -> Option<Self> {
        let kind = Kind::find(&reference.group, &reference.kind)?.kind;
        Some(Self {
            kind,
            namespace: reference.namespace.clone().unwrap_or_else(|| "".into()),
            name: reference.name.clone(),
        })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.info().name;
        if self.namespace.is_empty() {
            write!(f, "{kind} {}", self.name)
        } else {
            write!(f, "{kind} {}/{}", self.namespace, self.name)
        }
    }
}

/// An object that appeared, changed or (`None`) is gone.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which.
    pub key: ObjectKey,
    /// Its new content; `None` only when it is known to be deleted, never when it cannot be seen.
    pub object: Option<Arc<AnyObject>>,
}

impl Change {
    /// The object is there with this content.
    #[must_use]
    pub fn put(object: Arc<AnyObject>) -> Self {
        Self { key: ObjectKey::of(&object), object: Some(object) }
    }

    /// The object was deleted.
    #[must_use]
    pub const fn delete(key: ObjectKey) -> Self {
        Self { key, object: None }
    }
}

type Names = BTreeMap<(Arc<str>, Arc<str>), Arc<AnyObject>>;

/// All objects of one cluster that are known.
#[derive(Clone, Debug, Default)]
pub struct World {
    kinds: BTreeMap<Kind, Arc<Names>>,
}

impl World {
    /// A world of these objects; the last of several with one key counts.
    pub fn of(objects: impl IntoIterator<Item = Arc<AnyObject>>) -> Self {
        let mut world = Self::default();
        for object in objects {
            world.apply(&Change::put(object));
        }
        world
    }

    /// Applies a change and returns what was there before.
    pub fn apply(&mut self, change: &Change) -> Option<Arc<AnyObject>> {
        let ObjectKey { kind, namespace, name } = change.key.clone();
        let names = Arc::make_mut(self.kinds.entry(kind).or_default());
        match &change.object {
            Some(object) => names.insert((namespace, name), object.clone()),
            None => names.remove(&(namespace, name)),
        }
    }

    /// An object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<AnyObject>> {
        self.kinds.get(&key.kind)?.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// All objects, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AnyObject>> {
        self.kinds.values().flat_map(|names| names.values())
    }

    /// All objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<AnyObject>> {
        self.kinds.get(&kind).into_iter().flat_map(|names| names.values())
    }
}
