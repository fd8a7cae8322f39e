//! `AdmissionReview` v1: an API server asks what to do with a pod.
//!
//! Invariants: every question gets an answer with its uid; a pod that cannot be injected as it asks is refused with all
//! reasons, never let through without its proxy. There is no side effect, so a dry run is answered as any other.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Injected, InjectionConfig, Namespace, Outcome, inject, names, patch};

/// Most warnings and longest warning of an answer: API servers cut what is longer.
const MOST_WARNINGS: usize = 16;
const LONGEST_WARNING: usize = 250;

/// What a review asks for, once it is known to be one.
struct Question<'r> {
    uid: &'r str,
    request: &'r Value,
}

/// Answers a review of a pod in `namespace`.
///
/// The labels must be as new as the review: the API server calls because of them, and a caller whose own copy lags behind (a
/// namespace that was labelled a moment ago) would let the pod through without its proxy.
#[must_use]
pub fn review(config: &InjectionConfig, namespace: &Namespace, review: &Value) -> Value {
    let question = match Question::of(review) {
        Ok(question) => question,
        Err(what) => {
            let uid = review["request"]["uid"].as_str().unwrap_or_default();
            return envelope(refused(uid, 400, "BadRequest", what));
        }
    };
    let Question { uid, request } = question;
    if request["operation"] != "CREATE"
        || request["subResource"].as_str().is_some_and(|part| !part.is_empty())
    {
        return envelope(json!({"uid": uid, "allowed": true}));
    }
    let pod = &request["object"];
    if pod["kind"] != "Pod" || !pod["spec"].is_object() {
        return envelope(refused(uid, 400, "BadRequest", "the object is no Pod"));
    }
    let answer = match inject(config, namespace, pod, &names::workload_of(pod)) {
        Ok(Outcome::Left(reason)) => json!({
            "uid": uid,
            "allowed": true,
            "auditAnnotations": {"decision": "left", "reason": reason.to_string()},
        }),
        Ok(Outcome::Injected(injected)) => injected_answer(uid, pod, &injected),
        Err(refusal) => refused(uid, 422, "Invalid", &refusal.to_string()),
    };
    envelope(answer)
}

impl<'r> Question<'r> {
    fn of(review: &'r Value) -> Result<Self, &'static str> {
        if review["kind"] != "AdmissionReview" {
            return Err("this is no AdmissionReview");
        }
        if review["apiVersion"] != "admission.k8s.io/v1" {
            return Err("only admission.k8s.io/v1 is spoken");
        }
        let request = &review["request"];
        match request["uid"].as_str() {
            Some(uid) if !uid.is_empty() => Ok(Self { uid, request }),
            _ => Err("the review has no request with a uid"),
        }
    }
}

fn injected_answer(uid: &str, pod: &Value, injected: &Injected) -> Value {
    let Injected { pod: after, reason, warnings } = injected;
    let patch = Value::Array(patch::diff(pod, after)).to_string();
    let mut answer = json!({
        "uid": uid,
        "allowed": true,
        "patchType": "JSONPatch",
        "patch": STANDARD.encode(patch),
        "auditAnnotations": {"decision": "injected", "reason": reason.to_string()},
    });
    if !warnings.is_empty() {
        let warnings: Vec<_> = warnings.iter().take(MOST_WARNINGS).map(|warning| short(warning)).collect();
        answer["warnings"] = json!(warnings);
    }
    answer
}

fn refused(uid: &str, code: u16, reason: &str, message: &str) -> Value {
    let status = json!({"status": "Failure", "code": code, "reason": reason, "message": message});
    json!({"uid": uid, "allowed": false, "status": status})
}

fn envelope(response: Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn short(warning: &str) -> String {
    warning.chars().take(LONGEST_WARNING).collect()
}
