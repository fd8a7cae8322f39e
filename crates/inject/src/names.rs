//! Canonical name and revision of a pod, as labels by which telemetry groups.
//!
//! Invariant: a pod that the API server shows and the template of its workload get the same name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json;

/// Label of the canonical name.
pub(crate) const NAME: &str = "service.istio.io/canonical-name";
/// Label of the canonical revision.
pub(crate) const REVISION: &str = "service.istio.io/canonical-revision";
/// Longest value of a label.
const LONGEST: usize = 63;

/// The canonical name of a pod of `workload`.
pub(crate) fn name(labels: &BTreeMap<String, String>, workload: &str) -> String {
    let said = first(labels, &[NAME, "app.kubernetes.io/name", "app"]);
    let mut name = said.unwrap_or(workload).to_owned();
    name.truncate((0..=LONGEST.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0));
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// The canonical revision of a pod.
pub(crate) fn revision(labels: &BTreeMap<String, String>) -> String {
    first(labels, &[REVISION, "app.kubernetes.io/version", "version"]).unwrap_or("latest").to_owned()
}

fn first<'l>(labels: &'l BTreeMap<String, String>, keys: &[&str]) -> Option<&'l str> {
    keys.iter().find_map(|key| labels.get(*key)).map(String::as_str).filter(|value| !value.is_empty())
}

/// The name of the workload that a pod (or a Job, ReplicaSet and so on) belongs to: its Deployment, StatefulSet, CronJob, or its own.
#[must_use]
pub fn workload_of(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let owners = json::items(&metadata["ownerReferences"]);
    let owner = owners.iter().find(|owner| owner["controller"] == true);
    let Some(owner) = owner else {
        let name =
            metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default();
        return match pod["kind"].as_str() {
            Some("Job") => without_schedule(name),
            _ => name.trim_end_matches('-').to_owned(),
        };
    };
    let name = owner["name"].as_str().unwrap_or_default();
    match owner["kind"].as_str() {
        Some("ReplicaSet") => without_hash(name, &json::strings(&metadata["labels"])),
        Some("Job") => without_schedule(name),
        _ => name.to_owned(),
    }
}

/// A Deployment's ReplicaSet is named after it and the hash of the template.
fn without_hash(name: &str, labels: &BTreeMap<String, String>) -> String {
    let hashes =
        ["pod-template-hash", "rollouts-pod-template-hash"].into_iter().filter_map(|key| labels.get(key));
    let mut stripped = hashes.filter_map(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    stripped.next().unwrap_or(name).to_owned()
}

/// A CronJob's Job is named after it and the scheduled minute.
fn without_schedule(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((cron, minute))
            if (8..=10).contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit()) =>
        {
            cron.to_owned()
        }
        _ => name.to_owned(),
    }
}
