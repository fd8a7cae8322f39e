//! JSON documents: reading them from YAML, setting a field by its path, laying one over another.
//!
//! Invariant: a path is that of the schema: `[]` is the first item of a list, `{}` the first value of a map.

use leno_apis::yaml::{self, Node, Value as Yaml};
use serde_json::{Map, Value, json};

/// The documents of a YAML text; the items of those that are lists (which share anchors).
pub(super) fn read(name: &str, text: &str) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in yaml::documents(text) {
        match document {
            Ok(node) => match value(&node) {
                Value::Array(items) => documents.extend(items),
                other => documents.push(other),
            },
            Err(problem) => anyhow::bail!("{name}:{}: {}", problem.at.line, problem.message),
        }
    }
    Ok(documents)
}

fn value(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => json!(flag),
        Yaml::Int(int) => json!(int),
        Yaml::Float(float) => json!(float),
        Yaml::Text(text) => json!(text),
        Yaml::List(items) => Value::Array(items.iter().map(value).collect()),
        Yaml::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect())
        }
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Item,
    Entry,
}

/// `spec.http[].match[].headers{}.exact`, step by step.
pub(super) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let name = part.trim_end_matches("[]").trim_end_matches("{}").trim_end_matches("[]");
        steps.push(Step::Field(name.to_owned()));
        let mut rest = &part[name.len()..];
        while rest.len() >= 2 {
            steps.push(if rest.starts_with("[]") { Step::Item } else { Step::Entry });
            rest = &rest[2..];
        }
    }
    steps
}

/// What is at a path.
pub(super) fn get<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Item => value.get(0),
        Step::Entry => value.as_object()?.values().next(),
    })
}

/// The place of a path, which is made where it is missing; `key` is the key of maps that are empty.
pub(super) fn place<'v>(value: &'v mut Value, path: &[Step], key: &str) -> &'v mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Field(name) => object(value).entry(name.as_str()).or_insert(Value::Null),
        Step::Item => {
            if !value.is_array() {
                *value = json!([Value::Null]);
            }
            &mut value[0]
        }
        Step::Entry => {
            let map = object(value);
            let first = map.keys().next().cloned().unwrap_or_else(|| key.to_owned());
            map.entry(first).or_insert(Value::Null)
        }
    })
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

/// Lays one document over another: `null` removes, lists are laid over each other item by item.
pub(super) fn lay_over(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            let map = object(target);
            for (key, value) in fields {
                if value.is_null() {
                    map.remove(key);
                } else {
                    lay_over(map.entry(key.as_str()).or_insert(Value::Null), value);
                }
            }
        }
        Value::Array(items) => {
            let list = match target {
                Value::Array(list) => list,
                other => {
                    *other = json!([]);
                    match other {
                        Value::Array(list) => list,
                        _ => return,
                    }
                }
            };
            for (nth, item) in items.iter().enumerate() {
                if nth == list.len() {
                    list.push(Value::Null);
                }
                lay_over(&mut list[nth], item);
            }
        }
        other => *target = other.clone(),
    }
}

/// Every path of the schema that is set in a document, as `spec.a[].b`; below a map every key is also `{}`.
pub(super) fn paths(value: &Value, at: &str, found: &mut std::collections::BTreeSet<String>) {
    if !at.is_empty() {
        found.insert(at.to_owned());
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                paths(value, &below, found);
                if !at.is_empty() {
                    paths(value, &format!("{at}{{}}"), found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{at}[]"), found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_where_it_is_missing() {
        let mut value = json!({"spec": {"a": [{"x": 1}]}});
        *place(&mut value, &steps("spec.a[].m{}.exact"), "k") = json!("v");
        assert_eq!(value, json!({"spec": {"a": [{"x": 1, "m": {"k": {"exact": "v"}}}]}}));
        assert_eq!(get(&value, &steps("spec.a[].m{}.exact")), Some(&json!("v")));
    }

    #[test]
    fn a_patch_removes_with_null_and_reaches_into_lists() {
        let mut value = json!({"a": [{"b": 1, "c": 2}], "d": 3});
        lay_over(&mut value, &json!({"a": [{"b": null, "e": {}}], "d": null}));
        assert_eq!(value, json!({"a": [{"c": 2, "e": {}}]}));
    }
}
