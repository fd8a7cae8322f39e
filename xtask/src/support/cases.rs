//! Which case shows a field: the cases whose objects set it.
//!
//! Invariant: of the cases of a file that share an object, the one whose words speak most about the field is named; the
//! first of equals. Must not know: whether the case holds; its own run tells that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::document;

/// A case, as far as it shows fields.
#[derive(Clone, Debug)]
struct Case {
    title: String,
    /// Name, sentence of the specification and expectation, in lower case.
    words: String,
}

/// Which cases set which fields and labels.
#[derive(Debug, Default)]
pub(super) struct Shown {
    fields: BTreeMap<(String, String), Vec<Case>>,
    labels: BTreeMap<String, Vec<Case>>,
}

impl Shown {
    /// Reads the case files of a directory.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut shown = Self::default();
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
        let given: Vec<(&Value, Case)> = document["cases"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|case| {
                let title = format!("{file}: {}", case["name"].as_str().unwrap_or_default());
                let mut words = case.clone();
                if let Some(fields) = words.as_object_mut() {
                    fields.remove("objects");
                }
                (case, Case { title, words: words.to_string().to_lowercase() })
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
        let group = object["apiVersion"]
            .as_str()
            .and_then(|version| version.split_once('/'))
            .map_or("", |(group, _)| group);
        let title = format!("{}.{group}", object["kind"].as_str().unwrap_or_default());
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
    pub(super) fn field(&self, kind: &str, path: &str) -> Option<String> {
        let cases = self.fields.get(&(kind.to_owned(), path.to_owned()))?;
        best(cases, &words(path))
    }

    /// The case that shows an annotation or label.
    pub(super) fn label(&self, name: &str) -> Option<String> {
        best(self.labels.get(name)?, &words(name))
    }
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

fn best(cases: &[Case], words: &[String]) -> Option<String> {
    // A case about a refusal shows a field only when no other does.
    let score = |case: &Case| {
        let spoken = words.iter().filter(|word| case.words.contains(word.as_str())).count();
        (!case.title.contains("refus"), spoken)
    };
    let mut found: Option<(&Case, (bool, usize))> = None;
    for case in cases {
        let points = score(case);
        if found.is_none_or(|(_, most)| points > most) {
            found = Some((case, points));
        }
    }
    found.map(|(case, _)| case.title.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_that_speaks_of_the_field_is_named() {
        let file = serde_json::json!({
            "objects": [{"apiVersion": "g/v1", "kind": "K", "spec": {"rules": [{"timeouts": {"request": "1s"}}]}}],
            "cases": [{"name": "first"}, {"name": "a request has a limit", "expect": {"timeout": "1s"}}],
        });
        let mut shown = Shown::default();
        shown.add("f.yaml", &file);
        let case = shown.field("K.g", "spec.rules[].timeouts.request");
        assert_eq!(case.as_deref(), Some("f.yaml: a request has a limit"));
        assert_eq!(shown.field("K.g", "spec.other"), None);
    }
}
