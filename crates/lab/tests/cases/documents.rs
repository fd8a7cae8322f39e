//! Case files with the text of their objects: what a control plane is given.
//!
//! Invariant: the objects are those that [`leno_analyze::cases::read`] gives each case; a later one replaces an earlier one.
//! Must not know: proxies, sockets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use leno_analyze::cases::{self, Case};
use leno_apis::yaml::{self, Node, Value};
use serde_json::json;

use crate::loopback::Places;

/// A case and its world.
pub(crate) struct Run {
    pub(crate) case: Case,
    pub(crate) world: Arc<World>,
}

/// The objects of a case as JSON: those of other files, and those that are written beside the case.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct World {
    /// The file of cases: diagnostics name it.
    pub(crate) file: String,
    pub(crate) shared: Vec<serde_json::Value>,
    pub(crate) own: Vec<serde_json::Value>,
    /// Whether something is wrong with them on purpose.
    pub(crate) broken: bool,
}

/// The folder of the cases.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cases")
}

/// The cases of a text, with their addresses on this machine.
pub(crate) fn read(file: &str, text: &str, places: &Places) -> Vec<Run> {
    let load = |name: &str| {
        let text = std::fs::read_to_string(folder().join(name)).map_err(|error| error.to_string())?;
        Ok(places.translate(&text))
    };
    let text = places.translate(text);
    let read = cases::read(file, &text, &load).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    let worlds: Vec<World> = documents(&text).iter().flat_map(|node| worlds(file, node, &load)).collect();
    assert_eq!(read.cases.len(), worlds.len(), "{file}: as many worlds as cases");
    let runs = read.cases.into_iter().zip(worlds).map(|(case, mut world)| {
        world.broken = !case.diagnostics.is_empty();
        Run { case, world: Arc::new(world) }
    });
    share(runs.collect())
}

/// Cases of one world have the same one.
fn share(mut runs: Vec<Run>) -> Vec<Run> {
    for index in 1..runs.len() {
        if let Some(same) = runs[..index].iter().find(|run| run.world == runs[index].world) {
            runs[index].world = same.world.clone();
        }
    }
    runs
}

fn documents(text: &str) -> Vec<Node> {
    yaml::documents(text).into_iter().map(|node| node.expect("case files are YAML")).collect()
}

fn worlds(file: &str, document: &Node, load: &dyn Fn(&str) -> Result<String, String>) -> Vec<World> {
    let mut shared = Vec::new();
    for name in list(document, "files") {
        let text = load(name.as_text().expect("names of files")).expect("files of cases are readable");
        documents(&text).iter().for_each(|object| put(&mut shared, json_of(object)));
    }
    let objects = list(document, "objects").iter().map(json_of);
    let all: Vec<serde_json::Value> = objects.collect();
    let cases = list(document, "cases").iter().map(|case| {
        let (mut shared, mut own) = (shared.clone(), Vec::new());
        all.iter().cloned().chain(list(case, "objects").iter().map(json_of)).for_each(|object| {
            shared.retain(|other| name(other) != name(&object));
            put(&mut own, object);
        });
        World { file: file.to_owned(), shared, own, broken: false }
    });
    cases.collect()
}

fn list<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    match node.get(key).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn put(objects: &mut Vec<serde_json::Value>, object: serde_json::Value) {
    objects.retain(|other| name(other) != name(&object));
    objects.push(object);
}

/// What tells an object from others.
fn name(object: &serde_json::Value) -> (String, String, String, String) {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let group = text(&object["apiVersion"]).split_once('/').map(|(group, _)| group.to_owned());
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    (group.unwrap_or_default(), text(&object["kind"]), namespace, text(&object["metadata"]["name"]))
}

fn json_of(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => json!(flag),
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect()
        }
    }
}

impl World {
    /// The same without what is written beside the case.
    pub(crate) fn base(&self) -> Self {
        Self { file: self.file.clone(), shared: self.shared.clone(), own: Vec::new(), broken: false }
    }

    /// The objects, parsed.
    pub(crate) fn objects(&self) -> Vec<Arc<leno_apis::AnyObject>> {
        let parse = |object| leno_apis::parse_json("case", object).objects;
        self.shared.iter().chain(&self.own).flat_map(parse).collect()
    }
}
