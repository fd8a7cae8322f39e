//! Conditions of objects: what the compiler has to say to each object's author.
//!
//! Invariant: conditions are in a fixed order and of one value per type; where several units say something about one
//! condition, "false" wins. Who writes them and when is not known here.

use std::{collections::BTreeMap, sync::Arc};

use leno_model::Port;

/// The status of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObjectStatus {
    /// Conditions of the object as a whole, by type.
    pub conditions: BTreeMap<&'static str, Condition>,
    /// Conditions by parent (routes).
    pub parents: BTreeMap<ParentName, ParentStatus>,
    /// Listeners (Gateways), by name.
    pub listeners: BTreeMap<Arc<str>, ListenerStatus>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Whether it holds.
    pub status: bool,
    /// One word, such as `Accepted` or `BackendNotFound`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Condition {
    /// It holds.
    #[must_use]
    pub fn yes(reason: &'static str) -> Self {
        Self { status: true, reason, message: String::new() }
    }

    /// It does not hold, because of this.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: false, reason, message: message.into() }
    }
}

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentName {
    /// API group; empty for core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Listener, if the route names one.
    pub section_name: Option<Arc<str>>,
    /// Port, if the route names one.
    pub port: Option<Port>,
}

/// How a route fares with one parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ParentStatus {
    /// Conditions by type.
    pub conditions: BTreeMap<&'static str, Condition>,
}

/// How a listener fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerStatus {
    /// Routes attached to it.
    pub attached_routes: u32,
    /// Group and kind of routes that may attach.
    pub supported_kinds: Vec<(&'static str, &'static str)>,
    /// Conditions by type.
    pub conditions: BTreeMap<&'static str, Condition>,
}

/// `Accepted`
pub const ACCEPTED: &str = "Accepted";
/// `ResolvedRefs`
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// `Programmed`
pub const PROGRAMMED: &str = "Programmed";
/// `Conflicted`
pub const CONFLICTED: &str = "Conflicted";
/// `PartiallyInvalid`
pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";

/// `OverlappingTLSConfig`
pub const OVERLAPPING_TLS_CONFIG: &str = "OverlappingTLSConfig";

/// Every type that is ours to say, so that one that an object no longer has can be told from another controller's.
pub const TYPES: [&str; 6] =
    [ACCEPTED, RESOLVED_REFS, PROGRAMMED, CONFLICTED, PARTIALLY_INVALID, OVERLAPPING_TLS_CONFIG];

/// Says a condition: "false" wins over "true", the first "false" over later ones. (`Conflicted`, `PartiallyInvalid` and
/// `OverlappingTLSConfig` are bad when true, so there "true" wins.)
pub(crate) fn say(
    conditions: &mut BTreeMap<&'static str, Condition>,
    name: &'static str,
    condition: Condition,
) {
    let bad = matches!(name, CONFLICTED | PARTIALLY_INVALID | OVERLAPPING_TLS_CONFIG);
    match conditions.get(name) {
        Some(known) if known.status == bad || condition.status != bad => {}
        _ => {
            conditions.insert(name, condition);
        }
    }
}

impl ObjectStatus {
    /// Says a condition of the object as a whole.
    pub(crate) fn say(&mut self, name: &'static str, condition: Condition) {
        say(&mut self.conditions, name, condition);
    }

    /// Says a condition towards a parent.
    pub(crate) fn say_to(&mut self, parent: &ParentName, name: &'static str, condition: Condition) {
        say(&mut self.parents.entry(parent.clone()).or_default().conditions, name, condition);
    }

    /// Adds what another unit says about the same object.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, condition) in &other.conditions {
            self.say(name, condition.clone());
        }
        for (parent, status) in &other.parents {
            for (name, condition) in &status.conditions {
                self.say_to(parent, name, condition.clone());
            }
        }
        for (name, listener) in &other.listeners {
            self.listeners.entry(name.clone()).or_insert_with(|| listener.clone());
        }
    }
}
