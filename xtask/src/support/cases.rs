//! Which case shows a field: one whose objects set it, and that does not hold without it.
//!
//! Invariant: of several, the one whose words speak most about the field is named; the first of equals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leno_compile::MeshSettings;
use serde_json::Value;

use super::Shows;
use super::document::{self, Step, steps};

/// A case, as far as it shows fields.
#[derive(Clone, Debug)]
struct Case {
    title: String,
    /// Name, sentence of the specification and expectation, in lower case.
    words: String,
    /// The document that it stands in, and which of its cases it is.
    document: Arc<Value>,
    nth: usize,
}

/// Which cases set which fields and labels.
#[derive(Debug, Default)]
pub(super) struct Shown {
    folder: PathBuf,
    fields: BTreeMap<(String, String), Vec<Case>>,
    labels: BTreeMap<String, Vec<Case>>,
}

impl Shown {
    /// Reads the case files of a directory.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut shown = Self { folder: directory.to_owned(), ..Self::default() };
        let mut files: Vec<_> = match std::fs::read_dir(directory) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(),
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        for file in &files {
            let text = std::fs::read_to_string(file)?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for document in document::read(&name, &text)? {
                shown.add(&name, &document);
            }
        }
        Ok(shown)
    }

    fn add(&mut self, file: &str, document: &Value) {
        let whole = Arc::new(document.clone());
        let given: Vec<(&Value, Case)> = document["cases"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(nth, case)| {
                let title = format!("{file}: {}", case["name"].as_str().unwrap_or_default());
                let mut words = case.clone();
                if let Some(fields) = words.as_object_mut() {
                    fields.remove("objects");
                }
                let words = words.to_string().to_lowercase();
                (case, Case { title, words, document: whole.clone(), nth })
            })
            .collect();
        let everyone: Vec<Case> = given.iter().map(|(_, case)| case.clone()).collect();
        for object in document["objects"].as_array().into_iter().flatten() {
            self.add_object(object, &everyone);
        }
        for (case, known) in &given {
            for object in case["objects"].as_array().into_iter().flatten() {
                self.add_object(object, std::slice::from_ref(known));
            }
        }
    }

    fn add_object(&mut self, object: &Value, cases: &[Case]) {
        let title = title_of(object);
        let mut paths = BTreeSet::new();
        document::paths(&object["spec"], "spec", &mut paths);
        for path in paths {
            self.fields.entry((title.clone(), path)).or_default().extend_from_slice(cases);
        }
        let template = &object["spec"]["template"]["metadata"];
        for metadata in [&object["metadata"], template] {
            for kept in ["labels", "annotations"] {
                for name in metadata[kept].as_object().into_iter().flat_map(|map| map.keys()) {
                    self.labels.entry(name.clone()).or_default().extend_from_slice(cases);
                }
            }
        }
    }

    /// The case that shows a field.
    pub(super) fn field(&self, kind: &str, path: &str) -> Option<Shows> {
        let cases = self.fields.get(&(kind.to_owned(), path.to_owned()))?;
        let way = steps(path);
        self.best(cases, &words(path), |object| {
            if title_of(object) == kind {
                remove(object, &way);
            }
        })
    }

    /// The case that shows an annotation or label.
    pub(super) fn label(&self, name: &str) -> Option<Shows> {
        self.best(self.labels.get(name)?, &words(name), |object| {
            for holder in ["/metadata", "/spec/template/metadata"] {
                let metadata = object.pointer_mut(holder);
                for kept in metadata.and_then(Value::as_object_mut).into_iter().flat_map(|m| m.values_mut()) {
                    if let Some(map) = kept.as_object_mut() {
                        map.remove(name);
                    }
                }
            }
        })
    }

    /// The best of the cases that do not hold once `take_away` has been at their objects, else the best of all.
    fn best(&self, cases: &[Case], words: &[String], take_away: impl Fn(&mut Value)) -> Option<Shows> {
        let mut order: Vec<&Case> = cases.iter().collect();
        // A case about a refusal shows a field only when no other does. Stable: the first of equals stays first.
        order.sort_by_key(|case| {
            let spoken = words.iter().filter(|word| case.words.contains(word.as_str())).count();
            std::cmp::Reverse((!case.title.contains("refus"), spoken))
        });
        let shows = order.iter().find(|case| !self.holds_without(case, &take_away));
        let yes = shows.map(|case| Shows::Yes(case.title.clone()));
        yes.or_else(|| order.first().map(|case| Shows::SetsIt(case.title.clone())))
    }

    fn holds_without(&self, case: &Case, take_away: impl Fn(&mut Value)) -> bool {
        let mut document = (*case.document).clone();
        let mut own = document["cases"][case.nth].take();
        for holder in [&mut document, &mut own] {
            for object in holder.get_mut("objects").and_then(Value::as_array_mut).into_iter().flatten() {
                take_away(object);
            }
        }
        document["cases"] = Value::Array(vec![own]);
        let load =
            |name: &str| std::fs::read_to_string(self.folder.join(name)).map_err(|error| error.to_string());
        // JSON is YAML.
        match leno_analyze::cases::read("case", &document.to_string(), &load) {
            Ok(file) => leno_analyze::cases::run_file(&file, &MeshSettings::default()).failed == 0,
            Err(_) => false,
        }
    }
}

/// Takes away what is at a path, of every item and entry on the way; a list or map as a whole.
fn remove(value: &mut Value, path: &[Step]) {
    match path {
        [Step::Field(name), rest @ ..] if rest.iter().all(|step| !matches!(step, Step::Field(_))) => {
            if let Some(map) = value.as_object_mut() {
                map.remove(name);
            }
        }
        [Step::Field(name), rest @ ..] => {
            if let Some(inner) = value.get_mut(name) {
                remove(inner, rest);
            }
        }
        [Step::Item, rest @ ..] => {
            value.as_array_mut().into_iter().flatten().for_each(|item| remove(item, rest));
        }
        [Step::Entry, rest @ ..] => {
            value
                .as_object_mut()
                .into_iter()
                .flat_map(|map| map.values_mut())
                .for_each(|it| remove(it, rest));
        }
        [] => {}
    }
}

/// `KIND.GROUP` of an object.
fn title_of(object: &Value) -> String {
    let version = object["apiVersion"].as_str().and_then(|version| version.split_once('/'));
    let group = version.map_or("", |(group, _)| group);
    format!("{}.{group}", object["kind"].as_str().unwrap_or_default())
}

/// The words of the last two steps of a path.
fn words(path: &str) -> Vec<String> {
    let mut words = Vec::new();
    for step in path.rsplit(['.', '/']).take(2) {
        let mut word = String::new();
        for letter in step.chars().filter(char::is_ascii_alphanumeric) {
            if letter.is_ascii_uppercase() && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            word.push(letter.to_ascii_lowercase());
        }
        words.push(word);
    }
    words.retain(|word| word.len() > 2);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
objects:
  - {apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}}
  - apiVersion: v1
    kind: Pod
    metadata: {name: a-0, namespace: x, labels: {app: a, security.istio.io/tlsMode: istio}}
    spec: {containers: [{name: c}]}
    status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}
  - apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: r, namespace: x}
    spec: {hosts: [a], http: [{name: first, timeout: 1s, route: [{destination: {host: a}}]}]}
from: x/a-0
cases:
  - {name: a request is forwarded, request: http://a/, expect: {backend: a}}
  - {name: a request has a timeout, request: http://a/, expect: {timeout: 1s}}
  - {name: the timeout and name of a route are set here and nobody looks, request: http://a/, expect: {status: 200}}
";

    #[test]
    fn the_case_that_does_not_hold_without_the_field_is_named() {
        let mut shown = Shown::default();
        shown.add("f.yaml", &document::read("f.yaml", FILE).unwrap()[0]);
        let field = |path: &str| shown.field("VirtualService.networking.istio.io", path);
        let timeout = Shows::Yes("f.yaml: a request has a timeout".to_owned());
        assert_eq!(field("spec.http[].timeout"), Some(timeout));
        let name = field("spec.http[].name");
        assert!(matches!(name, Some(Shows::SetsIt(_))), "every case holds without it: {name:?}");
        assert!(matches!(field("spec.http[].route[].destination.host"), Some(Shows::Yes(_))));
        assert_eq!(field("spec.other"), None);
        assert!(shown.label("app").is_some());
    }
}
