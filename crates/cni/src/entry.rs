//! The plugin's entry in a network's list of plugins, which is also what the plugin is told at each call.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::ANNOTATIONS;

/// What the agent writes and the plugin reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Name of the program.
    #[serde(rename = "type")]
    pub program: String,
    /// Revision of the control plane whose pods are captured.
    pub revision: String,
    /// Path of the agent's socket.
    pub socket: String,
    /// Namespaces whose pods are never captured, whatever they say.
    pub exclude_namespaces: Vec<String>,
}

impl Entry {
    /// As it stands in the list.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Self { program, revision, socket, exclude_namespaces } = self;
        let capabilities = Map::from_iter([(ANNOTATIONS.to_owned(), json!(true))]);
        json!({
            "type": program,
            "capabilities": capabilities,
            "revision": revision,
            "socket": socket,
            "excludeNamespaces": exclude_namespaces,
        })
    }
}
