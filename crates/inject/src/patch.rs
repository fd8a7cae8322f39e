//! The difference between two values as a JSON patch (RFC 6902).
//!
//! Invariant: applied to `before`, the patch gives `after`, also in the order of its fields: a map that loses a key is replaced
//! as a whole, because removing one is not specified to keep the order of the others.

use serde_json::{Value, json};

/// The operations that make `before` into `after`.
#[must_use]
pub fn diff(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare("", before, after, &mut operations);
    operations
}

fn compare(path: &str, before: &Value, after: &Value, operations: &mut Vec<Value>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) if old.keys().all(|key| new.contains_key(key)) => {
            for (key, value) in new {
                let path = format!("{path}/{}", escape(key));
                match old.get(key) {
                    Some(old) => compare(&path, old, value, operations),
                    None => operations.push(json!({"op": "add", "path": path, "value": value})),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if new.len() >= old.len() => {
            let added = new.len() - old.len();
            if same(old, &new[added..]) {
                for (index, value) in new[..added].iter().enumerate() {
                    operations.push(json!({"op": "add", "path": format!("{path}/{index}"), "value": value}));
                }
                items(path, added, old, &new[added..], operations);
            } else if same(old, &new[..old.len()]) {
                items(path, 0, old, &new[..old.len()], operations);
                for (index, value) in new.iter().enumerate().skip(old.len()) {
                    operations.push(json!({"op": "add", "path": format!("{path}/{index}"), "value": value}));
                }
            } else {
                operations.push(replace(path, after));
            }
        }
        _ => operations.push(replace(path, after)),
    }
}

fn items(path: &str, offset: usize, before: &[Value], after: &[Value], operations: &mut Vec<Value>) {
    for (index, (old, new)) in before.iter().zip(after).enumerate() {
        compare(&format!("{path}/{}", index + offset), old, new, operations);
    }
}

/// Whether two lists are of the same things, changed or not: things with the same name, or equal ones.
fn same(before: &[Value], after: &[Value]) -> bool {
    before.iter().zip(after).all(|(old, new)| match (old.get("name"), new.get("name")) {
        (Some(old), Some(new)) => old == new,
        _ => old == new,
    })
}

fn replace(path: &str, value: &Value) -> Value {
    json!({"op": "replace", "path": path, "value": value})
}

/// RFC 6901: `~` and `/` in a key.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
