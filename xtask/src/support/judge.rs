//! Judging a field: the same world compiled with and without it, compared.
//!
//! Invariants: places (origins) do not count as a difference; a diagnostic that names the field or a part that holds it beats
//! a difference; a diagnostic that blames the fixture makes the field unjudged, never working.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use leno_apis::{AnyObject, Diagnostic, ObjectRef, Parsed, Refused, Severity};
use leno_compile::{Change, Compiler, MeshSettings, ObjectKey, ObjectStatus, World};
use leno_model::{Resource, ResourceKey};
use serde_json::Value;

use super::fixture::Settings;

/// Codes that say "this release does not act on it".
const REFUSALS: [&str; 6] = ["LN0103", "LN0106", "LN0109", "LN1007", "LN1008", "LN1010"];
/// Codes that say that the user wrote something wrong: about a fixture, that its author did.
const MISTAKES: [&str; 17] = [
    "LN0001", "LN0002", "LN0003", "LN0004", "LN0101", "LN0102", "LN0104", "LN0105", "LN0107", "LN0108",
    "LN1001", "LN1002", "LN1003", "LN1004", "LN1005", "LN1009", "LN1014",
];

/// What happens to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It changes what is compiled.
    Works,
    /// A diagnostic names it.
    Refused {
        /// Its code.
        code: String,
        /// What is withheld.
        effect: &'static str,
    },
    /// Nothing happens.
    Silent,
    /// The fixture is at fault.
    Unjudged(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Refused { code, effect } => write!(f, "refused ({code}, {effect})"),
            Self::Silent => f.write_str("silent: it is taken, without an effect and without a diagnostic"),
            Self::Unjudged(why) => write!(f, "cannot be judged: {why}"),
        }
    }
}

/// What came of a world.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// What proxies are told.
    pub(super) resources: BTreeMap<ResourceKey, Resource>,
    /// What authors are told.
    pub(super) statuses: BTreeMap<ObjectKey, ObjectStatus>,
    /// Findings.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Compiles a world with one more object, which is given as text.
pub(super) type Compile = fn(&Compiler, &Value) -> Outcome;

/// The real one.
pub(super) fn compiler(world: &Compiler, subject: &Value) -> Outcome {
    compile_parsed(world, leno_apis::parse_json("fixture", subject))
}

/// Compiles a world with objects that were parsed; incrementally, which equals compiling everything (a property of `compile`).
pub(super) fn compile_parsed(world: &Compiler, parsed: Parsed) -> Outcome {
    let mut diagnostics = parsed.diagnostics;
    let of_controllers = |object: &Arc<AnyObject>| matches!(**object, AnyObject::Deployment(_));
    let compiled = if parsed.objects.iter().any(of_controllers) {
        let objects: Vec<_> = world.world().iter().cloned().chain(parsed.objects).collect();
        let objects = leno_analyze::embedded::materialise(&objects);
        leno_compile::compile(&World::of(objects), &MeshSettings::default(), &[])
    } else {
        let mut world = world.clone();
        world.update(&parsed.objects.into_iter().map(Change::put).collect::<Vec<_>>());
        world.compiled().clone()
    };
    diagnostics.extend(compiled.diagnostics);
    Outcome { resources: compiled.resources, statuses: compiled.statuses, diagnostics }
}

impl Outcome {
    /// Whether two outcomes are the same but for places.
    fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Resource, &Resource)| {
            let plain = |resource: &Resource| serde_json::to_value(resource).map(without_places).ok();
            a == b || (plain(a).is_some() && plain(a) == plain(b))
        };
        self.statuses == other.statuses
            && self.resources.keys().eq(other.resources.keys())
            && self.resources.values().zip(other.resources.values()).all(same)
    }
}

fn without_places(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(key, _)| !matches!(key.as_str(), "origin" | "mtls_origin"))
                .map(|(key, value)| (key, without_places(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_places).collect()),
        other => other,
    }
}

/// A world in which fields are judged.
pub(super) struct Judge {
    world: Compiler,
    compile: Compile,
    known: Mutex<BTreeMap<String, Arc<Outcome>>>,
}

impl Judge {
    /// A world of these objects.
    pub(super) fn new(world: &[Value], compile: Compile) -> anyhow::Result<Self> {
        let nothing = Compiler::new(World::default(), MeshSettings::default(), Vec::new());
        Self { world: nothing, compile, known: Mutex::default() }.with_world(world)
    }

    /// The same world with more objects; one of a known name replaces it.
    pub(super) fn with_world(&self, more: &[Value]) -> anyhow::Result<Self> {
        let mut changes = Vec::new();
        for object in more {
            let parsed = leno_apis::parse_json("world", object);
            if let Some(wrong) = parsed.diagnostics.first() {
                anyhow::bail!("the world is at fault: {wrong}");
            }
            anyhow::ensure!(!parsed.objects.is_empty(), "not an object of the world: {object}");
            changes.extend(parsed.objects.into_iter().map(Change::put));
        }
        let mut world = self.world.clone();
        world.update(&changes);
        Ok(Self { world, compile: self.compile, known: Mutex::default() })
    }

    fn outcome(&self, object: &Value) -> Arc<Outcome> {
        let text = object.to_string();
        let known = self.known.lock().ok().and_then(|known| known.get(&text).cloned());
        known.unwrap_or_else(|| {
            let outcome = Arc::new((self.compile)(&self.world, object));
            if let Ok(mut known) = self.known.lock() {
                known.insert(text, outcome.clone());
            }
            outcome
        })
    }

    /// Judges a field by its settings: what works with one value works.
    pub(super) fn field(&self, settings: &Settings) -> Verdict {
        if settings.with.is_empty() {
            return Verdict::Unjudged("no value differs from the one that is there".to_owned());
        }
        let without = self.outcome(&settings.without);
        let bare = settings.bare.as_ref().map(|bare| self.outcome(bare));
        let verdicts: Vec<_> = settings
            .with
            .iter()
            .map(|with| judge(settings, with, &without, bare.as_deref(), &self.outcome(with)))
            .collect();
        let first = |test: fn(&Verdict) -> bool| verdicts.iter().find(|verdict| test(verdict)).cloned();
        first(|verdict| *verdict == Verdict::Works)
            .or_else(|| first(|verdict| matches!(verdict, Verdict::Refused { .. })))
            .or_else(|| first(|verdict| matches!(verdict, Verdict::Unjudged(_))))
            .unwrap_or(Verdict::Silent)
    }
}

fn judge(
    settings: &Settings,
    object: &Value,
    without: &Outcome,
    bare: Option<&Outcome>,
    with: &Outcome,
) -> Verdict {
    let about: Vec<_> =
        with.diagnostics.iter().filter(|found| is_about(object, found.object.as_ref())).collect();
    let is_refusal = |found: &Diagnostic| {
        REFUSALS.contains(&found.code) || settings.refused_by.iter().any(|code| code == found.code)
    };
    let refusals: Vec<_> = about.iter().copied().filter(|found| is_refusal(found)).collect();
    // The closest first: the field itself, then what holds it, then the object as a whole.
    let named = refusals
        .iter()
        .filter(|found| names(&found.at.field, settings))
        .max_by_key(|found| found.at.field.len());
    if let Some(found) = named {
        return refused(found);
    }
    let whole = without.diagnostics.iter().find(|found| {
        is_refusal(found) && found.at.field.is_empty() && is_about(object, found.object.as_ref())
    });
    if let Some(found) = whole {
        return Verdict::Refused { code: found.code.to_owned(), effect: "object" };
    }
    let mistake = about.iter().find(|found| {
        MISTAKES.contains(&found.code) && !settings.refused_by.iter().any(|code| code == found.code)
    });
    if let Some(found) = mistake {
        return Verdict::Unjudged(found.to_string());
    }
    // An empty part that holds the field may make a difference by itself, or be no valid part.
    if let Some(bare) = bare {
        let known = |found: &Diagnostic| without.diagnostics.contains(found);
        if let Some(found) = bare.diagnostics.iter().find(|found| !known(found)) {
            return Verdict::Unjudged(format!("what holds it needs something beside it: {found}"));
        }
        if bare.is_same(with) {
            return Verdict::Silent;
        }
    }
    if without.is_same(with) { Verdict::Silent } else { Verdict::Works }
}

fn is_about(object: &Value, reference: Option<&ObjectRef>) -> bool {
    reference.is_none_or(|about| {
        object["kind"].as_str() == Some(&about.kind)
            && object["metadata"]["name"].as_str() == Some(&about.name)
    })
}

/// Whether a place is the field, a part that holds it, or what chooses it.
fn names(place: &str, settings: &Settings) -> bool {
    let place = schema_path(place);
    let holds = |part: &str| {
        settings
            .path
            .strip_prefix(part)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
    };
    !place.is_empty() && (holds(&place) || settings.chosen_by.as_ref() == Some(&place))
}

/// `spec.http[0].headers["a"].exact` as the schema has it: `spec.http[].headers{}.exact`.
fn schema_path(place: &str) -> String {
    let mut path = String::new();
    let mut rest = place;
    while let Some(at) = rest.find('[') {
        path.push_str(&rest[..at]);
        let inside = &rest[at + 1..];
        let (mark, end) = match inside.strip_prefix('"') {
            Some(quoted) => ("{}", quoted.find("\"]").map(|end| end + 3)),
            None => ("[]", inside.find(']').map(|end| end + 1)),
        };
        path.push_str(mark);
        rest = end.and_then(|end| inside.get(end..)).unwrap_or("");
    }
    path + rest
}

fn refused(found: &Diagnostic) -> Verdict {
    let effect = match (found.effect, found.severity) {
        (Some(Refused::Field), _) | (None, Severity::Info | Severity::Warning) => "field",
        (Some(Refused::Rule), _) | (None, Severity::Error) => "rule",
        (Some(Refused::Object), _) => "object",
    };
    Verdict::Refused { code: found.code.to_owned(), effect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_paths_of_the_schema() {
        assert_eq!(
            schema_path("spec.http[0].match[12].headers[\"x.a\"].exact"),
            "spec.http[].match[].headers{}.exact"
        );
        assert_eq!(schema_path("spec.labels[\"a\"]"), "spec.labels{}");
    }
}
