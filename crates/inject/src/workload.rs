//! Pods and the pod templates of workloads, as they stand in manifests.
//!
//! Invariant: a template gets what the webhook would give to each of its pods; an object without pods stays as it is.

use serde_json::Value;

use crate::{InjectionConfig, Namespace, Outcome, Reason, Refusal, inject, workload_of};

/// What came of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadOutcome {
    /// Its pods have a proxy, for this reason and with these warnings.
    Injected(Reason, Vec<String>),
    /// Its pods stay as they are.
    Left(Reason),
    /// It has no pods.
    NoPods,
}

/// Where the pods of a kind are described, as a JSON pointer.
fn template_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod" => "",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "ReplicationController" => {
            "/spec/template"
        }
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}

/// Injects the pods of an object, in place.
///
/// # Errors
/// As [`inject`]; the object stays as it was.
pub fn inject_workload(
    config: &InjectionConfig,
    namespace: &Namespace,
    object: &mut Value,
) -> Result<WorkloadOutcome, Refusal> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let Some(pointer) = template_of(kind) else { return Ok(WorkloadOutcome::NoPods) };
    let workload = workload_of(object);
    let Some(template) = object.pointer_mut(pointer) else { return Ok(WorkloadOutcome::NoPods) };
    if !template["spec"].is_object() {
        return Err(Refusal { problems: vec![format!("{workload}: its pods have no spec")] });
    }
    match inject(config, namespace, template, &workload)? {
        Outcome::Left(reason) => Ok(WorkloadOutcome::Left(reason)),
        Outcome::Injected(injected) => {
            *template = injected.pod;
            Ok(WorkloadOutcome::Injected(injected.reason, injected.warnings))
        }
    }
}
