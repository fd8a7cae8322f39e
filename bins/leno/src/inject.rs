//! `leno inject`: manifests as they are with proxies, without a cluster.
//!
//! Invariant: the pods are those that the webhook would make, byte for byte, because the same function makes them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use leno_apis::yaml;
use leno_inject::{InjectionConfig, Namespace, WorkloadOutcome, inject_workload};
use serde_json::Value;

use crate::{Output, failure::Failure, install::Choices, write};

/// Add proxies to manifests, without a cluster
///
/// Reads Pods and the workloads that have pods (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Lists of them)
/// and prints all objects in the order of the input, those that are to have a proxy with it. What is said about them goes to
/// standard error. Exit code 1 when a pod asks for something that Leno does not honour; then nothing is printed.
///
/// A namespace's labels come from --namespace-labels, else from the Namespace among the manifests, else it counts as enrolled.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Manifests: a file, a folder, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short = 'n', long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Labels of every namespace, as `leno.dev/inject=enabled,team=shop`
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    namespace_labels: Option<Vec<(String, String)>>,
    #[command(flatten)]
    choices: Choices,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("needs the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Prints them.
pub(crate) fn inject(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let config = arguments.choices.read()?.injection();
    let mut documents = Vec::new();
    for path in &arguments.files {
        read(path, &mut documents).map_err(Failure::Usage)?;
    }
    let mut work = Work { arguments, config, namespaces: namespaces(&documents), refused: false };
    for (file, object) in &mut documents {
        work.object(file, object);
    }
    if work.refused {
        return Err(Failure::DoesNotHold);
    }
    let objects: Vec<Value> = documents.into_iter().map(|(_, object)| object).collect();
    write::objects(&objects, output);
    Ok(())
}

/// What is shared by all objects.
struct Work<'a> {
    arguments: &'a Arguments,
    config: InjectionConfig,
    namespaces: BTreeMap<String, Namespace>,
    refused: bool,
}

impl Work<'_> {
    fn object(&mut self, file: &str, object: &mut Value) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind.ends_with("List") && object["items"].is_array() {
            for item in object["items"].as_array_mut().into_iter().flatten() {
                self.object(file, item);
            }
            return;
        }
        let namespace = self.namespace_of(object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let about = format!("{file}: {kind} {}/{name}", namespace.name);
        match inject_workload(&self.config, &namespace, object) {
            Ok(WorkloadOutcome::NoPods) => {}
            Ok(WorkloadOutcome::Left(reason)) => eprintln!("{about}: no proxy: {reason}"),
            Ok(WorkloadOutcome::Injected(_, warnings)) => {
                for warning in warnings {
                    eprintln!("{about}: warning: {warning}");
                }
            }
            Err(refusal) => {
                self.refused = true;
                eprintln!("{about}: error: {refusal}");
            }
        }
    }

    fn namespace_of(&self, object: &Value) -> Namespace {
        let name = object["metadata"]["namespace"].as_str().unwrap_or(&self.arguments.namespace).to_owned();
        if let Some(labels) = &self.arguments.namespace_labels {
            return Namespace { name, labels: labels.iter().cloned().collect() };
        }
        self.namespaces.get(&name).cloned().unwrap_or_else(|| {
            let revision = ("leno.dev/rev".to_owned(), self.config.revision.clone());
            Namespace { name, labels: BTreeMap::from([revision]) }
        })
    }
}

/// The Namespaces among the manifests.
fn namespaces(documents: &[(String, Value)]) -> BTreeMap<String, Namespace> {
    let lists = documents.iter().flat_map(|(_, object)| object["items"].as_array().into_iter().flatten());
    let objects = documents.iter().map(|(_, object)| object).chain(lists);
    objects
        .filter(|object| object["kind"] == "Namespace")
        .map(Namespace::of)
        .map(|namespace| (namespace.name.clone(), namespace))
        .collect()
}

/// Reads every document of a file, of a folder's files in the order of their names, or of standard input.
fn read(path: &Path, documents: &mut Vec<(String, Value)>) -> anyhow::Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut entries: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        entries.sort();
        let manifest =
            |path: &Path| path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        return entries
            .iter()
            .filter(|path| path.is_dir() || manifest(path))
            .try_for_each(|path| read(path, documents));
    }
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    } else {
        text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    for document in yaml::documents(&text) {
        let node = document.map_err(|problem| {
            anyhow!("{}:{}:{}: {}", path.display(), problem.at.line, problem.at.column, problem.message)
        })?;
        let object = node.to_json();
        anyhow::ensure!(object.is_object(), "{}:{}: no object", path.display(), node.at.line);
        documents.push((path.display().to_string(), object));
    }
    Ok(())
}
