//! What is known of a pod's namespace.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json;

/// A namespace and its labels.
///
/// Only labels enrol: webhooks are selected by nothing else, and an answer that depended on an annotation would be one that is
/// never asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    /// From the object of an API server or a manifest.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Self { name, labels: json::strings(&object["metadata"]["labels"]) }
    }
}
