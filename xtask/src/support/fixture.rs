//! Fixtures: for each kind a valid object in a small world, and what a field needs beside it to mean something.
//!
//! Invariant: data (`fixtures/*.yaml`); rules that match a path are laid over the object in their order, general ones first;
//! the last value given counts. Must not know: what is compiled.

use anyhow::Context as _;
use leno_apis::Kind;
use leno_apis::schema::FieldPath;
use serde_json::{Value, json};

use super::document::{self, Step, lay_over, place, steps};

const WORLD: &str = include_str!("fixtures/world.yaml");
const COMMON: &str = include_str!("fixtures/common.yaml");
const KINDS: [(&str, &str); 3] = [
    ("gateway-api.yaml", include_str!("fixtures/gateway-api.yaml")),
    ("istio.yaml", include_str!("fixtures/istio.yaml")),
    ("refused.yaml", include_str!("fixtures/refused.yaml")),
];
const METADATA: &str = include_str!("fixtures/metadata.yaml");

/// All fixtures.
pub(super) struct Fixtures {
    pub(super) world: Vec<Value>,
    common: Vec<Rule>,
    kinds: Vec<KindFixture>,
    pub(super) metadata: Vec<MetadataFixture>,
}

/// A kind's valid object and its world.
pub(super) struct KindFixture {
    group: String,
    kind: String,
    spec: Value,
    pub(super) world: Vec<Value>,
    rules: Vec<Rule>,
}

/// What the fields with some paths need.
struct Rule {
    /// Paths, with `*` for anything.
    at: Vec<String>,
    /// Laid over the specification.
    spec: Value,
    /// Laid over the parts of the path with these names; `.` is the one that holds the field.
    beside: Vec<(String, Value)>,
    /// Values to set, each in turn.
    values: Vec<Value>,
    /// The key of a map that is made for the path.
    key: Option<String>,
    /// The field that chooses this one among others, whose diagnostic then is about this one.
    chosen_by: Option<String>,
    /// Codes that here mean "refused" although elsewhere they mean that the user made a mistake.
    refused_by: Vec<String>,
}

/// A field and two objects: without it (or with another value), and with it.
pub(super) struct Settings {
    pub(super) path: String,
    pub(super) without: Value,
    /// Without the field, and with an empty object around it, where there was none.
    pub(super) bare: Option<Value>,
    pub(super) with: Vec<Value>,
    pub(super) chosen_by: Option<String>,
    pub(super) refused_by: Vec<String>,
}

/// An annotation or label on an object.
pub(super) struct MetadataFixture {
    name: String,
    place: String,
    object: Value,
    values: Vec<Value>,
    pub(super) world: Vec<Value>,
}

fn list(value: Option<&Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items.clone(),
        Some(value) => vec![value.clone()],
        None => Vec::new(),
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("`{key}` is missing in {value}"))
}

const RULE_KEYS: [&str; 7] = ["at", "spec", "beside", "values", "key", "chosenBy", "refusedBy"];

fn rules(value: Option<&Value>) -> anyhow::Result<Vec<Rule>> {
    list(value)
        .iter()
        .map(|rule| {
            let fields = rule.as_object().context("a rule is a mapping")?;
            let unknown = fields.keys().find(|key| !RULE_KEYS.contains(&key.as_str()));
            anyhow::ensure!(unknown.is_none(), "unknown key {unknown:?} in {rule}");
            let beside = fields.get("beside").and_then(Value::as_object).into_iter().flatten();
            Ok(Rule {
                at: texts(fields.get("at")),
                spec: fields.get("spec").cloned().unwrap_or_else(|| json!({})),
                beside: beside.map(|(name, patch)| (name.clone(), patch.clone())).collect(),
                values: list(fields.get("values")),
                key: fields.get("key").and_then(Value::as_str).map(str::to_owned),
                chosen_by: fields.get("chosenBy").and_then(Value::as_str).map(str::to_owned),
                refused_by: texts(fields.get("refusedBy")),
            })
        })
        .collect()
}

impl Fixtures {
    /// Reads the fixtures that are built in.
    pub(super) fn read() -> anyhow::Result<Self> {
        let mut kinds = Vec::new();
        for (name, text) in KINDS {
            for document in document::read(name, text)? {
                kinds.push(KindFixture::read(&document).with_context(|| name.to_owned())?);
            }
        }
        let metadata = document::read("metadata.yaml", METADATA)?.iter().map(MetadataFixture::read).collect();
        let common = document::read("common.yaml", COMMON)?;
        Ok(Self {
            world: document::read("world.yaml", WORLD)?,
            common: rules(Some(&Value::Array(common)))?,
            kinds,
            metadata: metadata_of(metadata)?,
        })
    }

    /// The fixture of a kind.
    pub(super) fn kind(&self, group: &str, kind: &str) -> Option<&KindFixture> {
        self.kinds.iter().find(|fixture| fixture.group == group && fixture.kind == kind)
    }

    /// A field of a kind, and the objects that show what it does.
    pub(super) fn settings(&self, fixture: &KindFixture, field: &FieldPath) -> anyhow::Result<Settings> {
        let mut without = fixture.object()?;
        let path = steps(field.path);
        let (mut values, mut key) = (Vec::new(), "x-sample".to_owned());
        let (mut chosen_by, mut refused_by) = (None, Vec::new());
        for rule in self.common.iter().chain(&fixture.rules).filter(|rule| rule.is_for(field.path)) {
            lay_over(&mut without["spec"], &rule.spec);
            for (name, patch) in &rule.beside {
                let part =
                    part_of(&path, name).with_context(|| format!("{} has no step {name}", field.path))?;
                lay_over(place(&mut without, part, &key), patch);
            }
            if !rule.values.is_empty() {
                values.clone_from(&rule.values);
            }
            key = rule.key.clone().unwrap_or(key);
            chosen_by = rule.chosen_by.as_deref().map(|name| sibling(field.path, name)).or(chosen_by);
            refused_by.extend(rule.refused_by.iter().cloned());
        }
        if values.is_empty() {
            values = samples(field);
        }
        let before = document::get(&without, &path).cloned();
        let bare = bare(&without, &path, &key);
        let with = values.into_iter().filter(|value| Some(value) != before.as_ref()).map(|value| {
            let mut object = without.clone();
            *place(&mut object, &path, &key) = value;
            object
        });
        Ok(Settings {
            path: field.path.to_owned(),
            with: with.collect(),
            without,
            bare,
            chosen_by,
            refused_by,
        })
    }
}

fn metadata_of(entries: anyhow::Result<Vec<MetadataFixture>>) -> anyhow::Result<Vec<MetadataFixture>> {
    entries.context("metadata.yaml")
}

/// `.../type` for a path below the same part: `..filters[].cors.maxAge` and `filters[].type` give `..filters[].type`.
fn sibling(path: &str, name: &str) -> String {
    let (part, field) = name.rsplit_once('.').unwrap_or(("", name));
    match path.rfind(part) {
        Some(at) if !part.is_empty() => format!("{}{part}.{field}", &path[..at]),
        _ => name.to_owned(),
    }
}

/// The part of a path with a name, or (`.`) the one that holds the field. Of a list or map, its item is meant.
fn part_of<'p>(path: &'p [Step], name: &str) -> Option<&'p [Step]> {
    let field = path.iter().rposition(|step| matches!(step, Step::Field(_)))?;
    if name == "." {
        return Some(&path[..field]);
    }
    let depth = path.iter().rposition(|step| matches!(step, Step::Field(known) if known == name))?;
    let items = path[depth + 1..].iter().take_while(|step| !matches!(step, Step::Field(_))).count();
    Some(&path[..=depth + items])
}

/// The object with an empty part where the field would be; `None` when the part is there.
fn bare(object: &Value, path: &[Step], key: &str) -> Option<Value> {
    let field = path.iter().rposition(|step| matches!(step, Step::Field(_)))?;
    let part = &path[..field];
    if document::get(object, part).is_some_and(|part| !part.is_null()) {
        return None;
    }
    let mut object = object.clone();
    *place(&mut object, part, key) = json!({});
    Some(object)
}

/// Values to try when no rule gives any.
fn samples(field: &FieldPath) -> Vec<Value> {
    if !field.values.is_empty() {
        let numeric = matches!(field.kind, "integer" | "number");
        let value = |text: &&str| if numeric { json!(text.parse::<i64>().unwrap_or(0)) } else { json!(text) };
        return field.values.iter().map(value).collect();
    }
    match field.kind {
        "integer" => vec![json!(7)],
        "number" => vec![json!(12.5)],
        "boolean" => vec![json!(true), json!(false)],
        "string" | "int-or-string" => vec![json!("sample")],
        "array" => vec![json!([])],
        _ => vec![json!({})],
    }
}

impl Rule {
    fn is_for(&self, path: &str) -> bool {
        self.at.iter().any(|pattern| glob(pattern, path))
    }
}

/// Whether a pattern with `*` covers a path as a whole.
pub(super) fn glob(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((head, tail)) => path.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..]))
        }),
    }
}

impl KindFixture {
    fn read(document: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            group: text(document, "group")?,
            kind: text(document, "kind")?,
            spec: document.get("spec").cloned().unwrap_or_else(|| json!({})),
            world: list(document.get("world")),
            rules: rules(document.get("fields"))?,
        })
    }

    /// The valid object.
    pub(super) fn object(&self) -> anyhow::Result<Value> {
        let info = Kind::find(&self.group, &self.kind).with_context(|| format!("no kind {}", self.kind))?;
        let version = info.versions.first().context("every kind has a version")?;
        let mut object = json!({
            "apiVersion": format!("{}/{version}", self.group),
            "kind": self.kind,
            "metadata": {"name": "subject"},
            "spec": self.spec,
        });
        if info.namespaced {
            object["metadata"]["namespace"] = json!("shop");
        }
        Ok(object)
    }
}

impl MetadataFixture {
    fn read(document: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            name: text(document, "name")?,
            place: text(document, "place")?,
            object: document.get("object").cloned().context("`object` is missing")?,
            values: list(document.get("values")),
            world: list(document.get("world")),
        })
    }

    /// Its name and what it stands on.
    pub(super) fn title(&self) -> String {
        let kind = self.object["kind"].as_str().unwrap_or_default();
        format!("{} ({} of a {kind})", self.name, self.place)
    }

    /// The annotation or label.
    #[cfg(test)]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The object without and with it.
    pub(super) fn settings(&self) -> Settings {
        let with = self.values.iter().map(|value| {
            let mut object = self.object.clone();
            let kept = if self.place.ends_with("label") { "labels" } else { "annotations" };
            let of_template = self.place.starts_with("template");
            let path = if of_template { "spec.template.metadata" } else { "metadata" };
            let map = place(&mut object, &steps(&format!("{path}.{kept}")), "");
            lay_over(map, &json!({ self.name.as_str(): value }));
            object
        });
        Settings {
            path: "metadata".to_owned(),
            with: with.collect(),
            without: self.object.clone(),
            bare: None,
            chosen_by: None,
            refused_by: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_whole_paths() {
        assert!(glob("*.tls.sni", "spec.trafficPolicy.tls.sni"));
        assert!(glob("spec.http[].redirect*", "spec.http[].redirect.port"));
        assert!(!glob("*.tls", "spec.trafficPolicy.tls.sni"));
    }

    #[test]
    fn what_chooses_a_field_is_found_beside_its_part() {
        assert_eq!(
            sibling("spec.rules[].filters[].cors.maxAge", "filters[].type"),
            "spec.rules[].filters[].type"
        );
    }
}
