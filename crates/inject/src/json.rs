//! Reading and extending objects that may be anything.
//!
//! Invariant: a value of the wrong type reads as absent, or is refused where it would have to be extended; nothing panics.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The strings of a map of strings, such as labels.
pub(crate) fn strings(value: &Value) -> BTreeMap<String, String> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The items of a list; none when it is absent.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A field that is a map, made when it is absent.
pub(crate) fn map<'o>(object: &'o mut Value, field: &str) -> Result<&'o mut Map<String, Value>, String> {
    match entry(object, field, || Value::Object(Map::new()))? {
        Value::Object(fields) => Ok(fields),
        _ => Err(format!("{field} is no object")),
    }
}

/// A field that is a list, made when it is absent.
pub(crate) fn list<'o>(object: &'o mut Value, field: &str) -> Result<&'o mut Vec<Value>, String> {
    match entry(object, field, || Value::Array(Vec::new()))? {
        Value::Array(items) => Ok(items),
        _ => Err(format!("{field} is no list")),
    }
}

fn entry<'o>(object: &'o mut Value, field: &str, empty: fn() -> Value) -> Result<&'o mut Value, String> {
    let Value::Object(fields) = object else { return Err(format!("what holds {field} is no object")) };
    let value = fields.entry(field).or_insert_with(empty);
    if value.is_null() {
        *value = empty();
    }
    Ok(value)
}
