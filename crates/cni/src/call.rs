//! One call by the container runtime, as the CNI specification has it (1.0; 1.1's GC and STATUS too).
//!
//! Invariant: what is not understood is an error by the specification's code, never a guess.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ANNOTATIONS, Entry};

/// Versions of the specification, of which each has chained plugins with `prevResult`.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The specification's code for what may succeed when it is tried again.
pub const RETRY_LATER: u32 = 11;

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A container is connected.
    Add,
    /// Is it still as ADD has left it?
    Check,
    /// It goes.
    Delete,
    /// Which versions are understood?
    Version,
    /// Of the network as a whole (1.1): nothing of ours.
    Other,
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What is wanted.
    pub command: Command,
    /// The plugin's own configuration.
    pub entry: Entry,
    /// What the plugins before it have made, to be given on as it is.
    pub previous: Option<Value>,
    /// The container.
    pub container: String,
    /// Path of its network namespace.
    pub netns: Option<String>,
    /// The pod's namespace and name; none outside Kubernetes.
    pub pod: Option<(String, String)>,
    /// The pod's annotations; none when the runtime does not tell them.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Why a call is not answered as wanted; printed as the specification says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The specification's code.
    pub code: u32,
    /// What is wrong.
    pub message: String,
    /// More of it.
    pub details: String,
}

impl Failure {
    /// As it is printed.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        let Self { code, message, details } = self;
        json!({"cniVersion": version, "code": code, "msg": message, "details": details})
    }

    fn new(code: u32, message: &str, details: impl ToString) -> Self {
        Self { code, message: message.to_owned(), details: details.to_string() }
    }
}

/// What VERSION is answered.
#[must_use]
pub fn versions(asked: &str) -> Value {
    let latest = VERSIONS[VERSIONS.len() - 1];
    let version = if VERSIONS.contains(&asked) { asked } else { latest };
    json!({"cniVersion": version, "supportedVersions": VERSIONS})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    runtime_config: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(flatten)]
    entry: Entry,
}

/// Reads a call: its environment (`CNI_*`) and what is on its standard input.
///
/// # Errors
/// With the specification's code for what is wrong.
pub fn read(environment: impl Fn(&str) -> Option<String>, input: &str) -> Result<Call, Failure> {
    let needed = |name: &str| {
        let value = environment(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| Failure::new(4, "a variable of the environment is missing", name))
    };
    let command = match needed("CNI_COMMAND")?.as_str() {
        "ADD" => Command::Add,
        "CHECK" => Command::Check,
        "DEL" => Command::Delete,
        "VERSION" => Command::Version,
        "GC" | "STATUS" => Command::Other,
        other => return Err(Failure::new(4, "the command is unknown", other)),
    };
    if command == Command::Version {
        return Err(Failure::new(4, "VERSION is answered by itself", ""));
    }
    let Configuration { cni_version, runtime_config, prev_result, entry } = serde_json::from_str(input)
        .map_err(|error| Failure::new(6, "the configuration cannot be read", error))?;
    if !VERSIONS.contains(&cni_version.as_str()) {
        let known = format!("{cni_version:?} is none of {}", VERSIONS.join(", "));
        return Err(Failure::new(1, "this version of CNI is not supported", known));
    }
    let of_a_container = command != Command::Other;
    Ok(Call {
        command,
        entry,
        previous: prev_result,
        container: if of_a_container { needed("CNI_CONTAINERID")? } else { String::new() },
        netns: environment("CNI_NETNS").filter(|path| !path.is_empty()),
        pod: environment("CNI_ARGS").as_deref().and_then(pod),
        annotations: runtime_config.and_then(|config| annotations(config.get(ANNOTATIONS)?)),
    })
}

/// `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;...`
fn pod(arguments: &str) -> Option<(String, String)> {
    let value = |key: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    Some((value("K8S_POD_NAMESPACE")?, value("K8S_POD_NAME")?))
}

/// None is said when they cannot be read: that is as if the runtime did not tell them.
fn annotations(value: &Value) -> Option<BTreeMap<String, String>> {
    serde_json::from_value(value.clone()).ok()
}

impl Call {
    /// What ADD prints when all is well.
    ///
    /// # Errors
    /// When no plugin came before this one, which has no address to give.
    pub fn result(&self) -> Result<&Value, Failure> {
        let missing = || Failure::new(7, "prevResult is missing: this plugin must come after others", "");
        self.previous.as_ref().ok_or_else(missing)
    }
}
