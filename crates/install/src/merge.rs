//! Defaults, files and `--set` made into one set of values.
//!
//! Invariant: later wins; maps are merged, anything else is replaced, `null` takes the default's place as in Helm.

use leno_apis::yaml;
use leno_inject::Capture;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    Cni, Values,
    values::{EastWest, Peer},
};

/// What is laid over the defaults.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Files: a name to speak of, and the text.
    pub files: Vec<(String, String)>,
    /// `path.of.keys=VALUE`, the value being YAML.
    pub set: Vec<String>,
}

/// Why there are no values.
#[derive(Debug, Error)]
pub enum InvalidValues {
    /// A file cannot be read as YAML.
    #[error("{file}, line {line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// Where.
        line: u32,
        /// What is wrong.
        message: String,
    },
    /// A file is no mapping.
    #[error("{file} must be one mapping of values")]
    NoMapping {
        /// The file.
        file: String,
    },
    /// A `--set` cannot be read.
    #[error("--set {text}: {message}")]
    Set {
        /// What was given.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// An unknown value, or one of the wrong type.
    // It says what its source says, with the path: as a source it would be told twice.
    #[error("values: {0}")]
    Unfit(serde_path_to_error::Error<serde_json::Error>),
    /// Values that are of the right type and yet mean nothing.
    #[error("values: {}", .0.join("; "))]
    Meaningless(Vec<String>),
}

/// The values that a user's files and `--set` give.
///
/// # Errors
/// What cannot be read, is unknown, or means nothing.
pub fn values(overrides: &Overrides) -> Result<Values, InvalidValues> {
    let mut merged = json!(Values::default());
    for (file, text) in &overrides.files {
        merge(&mut merged, read(file, text)?);
    }
    for text in &overrides.set {
        merge(&mut merged, assignment(text)?);
    }
    let values: Values = serde_path_to_error::deserialize(merged).map_err(InvalidValues::Unfit)?;
    let faults = faults(&values);
    if faults.is_empty() { Ok(values) } else { Err(InvalidValues::Meaningless(faults)) }
}

fn read(file: &str, text: &str) -> Result<Value, InvalidValues> {
    let mut documents = yaml::documents(text);
    if documents.len() > 1 {
        return Err(InvalidValues::NoMapping { file: file.to_owned() });
    }
    match documents.pop() {
        None => Ok(Value::Object(Map::new())),
        Some(Ok(node)) if matches!(node.value, yaml::Value::Map(_)) => Ok(node.to_json()),
        Some(Ok(_)) => Err(InvalidValues::NoMapping { file: file.to_owned() }),
        Some(Err(problem)) => Err(InvalidValues::Syntax {
            file: file.to_owned(),
            line: problem.at.line,
            message: problem.message,
        }),
    }
}

/// `a.b=c` as the mapping `{a: {b: c}}`; `\.` is a dot within a key.
fn assignment(text: &str) -> Result<Value, InvalidValues> {
    let wrong = |message: &str| InvalidValues::Set { text: text.to_owned(), message: message.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(|| wrong("needs the form path.of.keys=VALUE"))?;
    let value = match yaml::documents(value).pop() {
        None if value.trim().is_empty() => Value::String(String::new()),
        None => Value::Null,
        Some(node) => node.map_err(|problem| wrong(&problem.message))?.to_json(),
    };
    let keys: Vec<String> = path.replace("\\.", "\0").split('.').map(|key| key.replace('\0', ".")).collect();
    if keys.iter().any(String::is_empty) {
        return Err(wrong("a key is empty"));
    }
    Ok(keys.into_iter().rev().fold(value, |value, key| Value::Object(Map::from_iter([(key, value)]))))
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.shift_remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Values that Kubernetes or a proxy would refuse later, where nobody looks.
fn faults(values: &Values) -> Vec<String> {
    let mut faults = Vec::new();
    let mut named = |what: &str, name: &str, may_be_empty: bool| {
        if !(is_label(name) || may_be_empty && name.is_empty()) {
            faults.push(format!("{what}: `{name}` is no name of lowercase letters, digits and `-`"));
        }
    };
    named("namespace", &values.namespace, false);
    named("revision", &values.revision, false);
    named("cluster", &values.cluster, false);
    named("network", &values.network, true);
    named("cni.namespace", &values.cni.namespace, false);
    for tag in &values.tags {
        named("tags", tag, false);
    }
    for namespace in values.gateways.secret_namespaces.iter().filter(|namespace| *namespace != "*") {
        named("gateways.secretNamespaces", namespace, false);
    }
    if values.replicas == 0 {
        faults.push("replicas: at least one is needed".to_owned());
    }
    if !["Always", "IfNotPresent", "Never"].contains(&values.image.pull_policy.as_str()) {
        faults.push("image.pullPolicy: it is one of Always, IfNotPresent, Never".to_owned());
    }
    if values.proxy.concurrency > 64 {
        faults.push("proxy.concurrency: at most 64".to_owned());
    }
    if !(1..=86_400).contains(&values.proxy.startup_seconds) {
        faults.push("proxy.startupSeconds: from 1 to 86400".to_owned());
    }
    let in_trust_domain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    if values.trust_domain.is_empty() || !values.trust_domain.bytes().all(in_trust_domain) {
        faults.push(format!("trustDomain: `{}` is no SPIFFE trust domain", values.trust_domain));
    }
    for (what, name) in [("image.proxy", &values.image.proxy), ("image.control", &values.image.control)] {
        if name.is_empty() {
            faults.push(format!("{what}: it must not be empty"));
        }
    }
    for (resource, quantity) in values.resources.requests.iter().chain(&values.resources.limits) {
        faults
            .extend(leno_inject::quantity_fault(quantity).map(|why| format!("resources, {resource}: {why}")));
    }
    faults.extend(of_the_agent(values));
    if !(0.0..=1.0).contains(&values.proxy.tracing.sampling) {
        faults.push("proxy.tracing.sampling: it is a share, from 0 to 1".to_owned());
    }
    faults.extend(values.injection().faults());
    faults.extend(faults_of_clusters(values));
    faults
}

/// What of other clusters cannot be.
fn faults_of_clusters(values: &Values) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, Peer { cluster, addresses }) in values.peers.iter().enumerate() {
        if !is_label(cluster) {
            faults.push(format!("peers: `{cluster}` is no name of lowercase letters, digits and `-`"));
        }
        if *cluster == values.cluster {
            faults.push(format!("peers: {cluster} is this cluster"));
        }
        if values.peers[..index].iter().any(|earlier| earlier.cluster == *cluster) {
            faults.push(format!("peers: {cluster} is there twice"));
        }
        if addresses.is_empty() {
            faults.push(format!("peers: {cluster}: where its control planes are is missing"));
        }
        let in_address = |c: u8| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c);
        for address in addresses.iter().filter(|it| it.is_empty() || !it.bytes().all(in_address)) {
            faults.push(format!("peers: {cluster}: `{address}` is no HOST or HOST:PORT"));
        }
    }
    let EastWest { enabled, replicas, resources, service: _ } = &values.east_west;
    if *enabled && values.network.is_empty() {
        faults.push("eastWest: it leads into a network, and `network` names none".to_owned());
    }
    if *replicas == 0 {
        faults.push("eastWest.replicas: at least one is needed".to_owned());
    }
    for (resource, quantity) in resources.requests.iter().chain(&resources.limits) {
        let fault = leno_inject::quantity_fault(quantity);
        faults.extend(fault.map(|why| format!("eastWest.resources, {resource}: {why}")));
    }
    faults
}

/// What the nodes' agent could not do its work with.
fn of_the_agent(values: &Values) -> Vec<String> {
    let Cni { namespace, bin_dir, conf_dir, resources, .. } = &values.cni;
    let mut faults = Vec::new();
    for (what, folder) in [("cni.binDir", bin_dir), ("cni.confDir", conf_dir)] {
        if !folder.starts_with('/') {
            faults.push(format!("{what}: `{folder}` is no absolute path"));
        }
    }
    for (resource, quantity) in resources.requests.iter().chain(&resources.limits) {
        let fault = leno_inject::quantity_fault(quantity);
        faults.extend(fault.map(|why| format!("cni.resources, {resource}: {why}")));
    }
    if values.injection.capture == Capture::Cni && values.create_namespace && *namespace == values.namespace {
        let level = "is held to the restricted level, which the agent does not meet";
        faults.push(format!("cni.namespace: the control plane's namespace {level}"));
    }
    faults
}

/// RFC 1123: a DNS label.
fn is_label(name: &str) -> bool {
    let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().all(|c| letters(c) || c == b'-')
        && name.bytes().next().is_some_and(letters)
        && name.bytes().next_back().is_some_and(letters)
}
