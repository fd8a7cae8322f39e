//! The `expect` of a case.

use std::collections::BTreeMap;

use leno_apis::yaml::{Node, Value};
use leno_model::Millis;

use super::fields::{Errors, Fields, entries, milliseconds, percent, text};
use crate::cases::format::{
    DenialExpectation, Expect, FaultExpectation, ForwardedExpectation, HeaderValues, Limit, RetryExpectation,
};

pub(super) fn read(node: &Node, errors: &Errors) -> Option<Expect> {
    let mut fields = Fields::of(node, errors)?;
    let expect = Expect {
        backends: fields.take("backends").or(fields.take("backend")).map(|node| shares(node, errors)),
        status: fields.integer("status"),
        location: fields.text("location"),
        body: fields.text("body"),
        reason: fields.text("reason"),
        forwarded: fields.take("forwarded").and_then(|node| forwarded(node, errors)),
        response_headers: fields
            .take("response_headers")
            .map(|node| headers(node, errors))
            .unwrap_or_default(),
        timeout: fields.take("timeout").and_then(|node| limit(node, errors)),
        attempt_timeout: fields.take("attempt_timeout").and_then(|node| limit(node, errors)),
        retries: fields.take("retries").and_then(|node| retries(node, errors)),
        fault: fields.take("fault").and_then(|node| fault(node, errors)),
        mirror: fields.take("mirror").map(|node| shares(node, errors)),
        denied: fields.take("denied").and_then(|node| denied(node, errors)),
        allowed: fields.flag("allowed"),
        mtls: fields.flag("mtls"),
        no_route: fields.flag("no_route"),
        plaintext_refused: fields.flag("plaintext_refused"),
        passthrough: fields.flag("passthrough"),
        protocol: fields.text("protocol"),
        destination: fields.take("destination").map(json),
        workload: fields.take("workload").map(json),
        listener: fields.take("listener").map(json),
        diagnostics: texts(fields.list("diagnostics"), errors),
        no_diagnostics: texts(fields.list("no_diagnostics"), errors),
        conditions: fields.take("conditions").map(|node| conditions(node, errors)).unwrap_or_default(),
    };
    let all_known = fields.finish();
    if expect != Expect::default() {
        return Some(expect);
    }
    // What is misspelt is told, and would have been something.
    if all_known {
        errors.add(node.at, "a case expects something");
    }
    None
}

fn texts(nodes: &[Node], errors: &Errors) -> Vec<String> {
    nodes.iter().filter_map(|node| text(node, errors)).collect()
}

/// `{name: share}`, `name` for all of it, or `none`.
fn shares(node: &Node, errors: &Errors) -> BTreeMap<String, f64> {
    match &node.value {
        Value::Text(name) if name == "none" => BTreeMap::new(),
        Value::Text(name) => BTreeMap::from([(name.clone(), 100.0)]),
        _ => entries(node, errors)
            .into_iter()
            .filter_map(|(name, share)| Some((name.to_owned(), percent(share, errors)?)))
            .collect(),
    }
}

fn headers(node: &Node, errors: &Errors) -> HeaderValues {
    let mut found = HeaderValues::new();
    for (name, value) in entries(node, errors) {
        let value = match value.value {
            Value::Null => None,
            _ => text(value, errors),
        };
        found.insert(name.to_ascii_lowercase(), value);
    }
    found
}

fn forwarded(node: &Node, errors: &Errors) -> Option<ForwardedExpectation> {
    let mut fields = Fields::of(node, errors)?;
    let found = ForwardedExpectation {
        path: fields.text("path"),
        host: fields.text("host"),
        headers: fields.take("headers").map(|node| headers(node, errors)).unwrap_or_default(),
    };
    fields.finish();
    Some(found)
}

fn limit(node: &Node, errors: &Errors) -> Option<Limit> {
    let written = text(node, errors)?;
    if written == "none" { Some(Limit::None) } else { duration(node, errors).map(Limit::After) }
}

fn duration(node: &Node, errors: &Errors) -> Option<Millis> {
    let found = text(node, errors).and_then(|text| milliseconds(&text));
    if found.is_none() {
        errors.add(node.at, "expected a duration such as `500ms` or `2s`");
    }
    found.map(Millis)
}

fn retries(node: &Node, errors: &Errors) -> Option<RetryExpectation> {
    if let Value::Int(attempts) = node.value {
        return Some(RetryExpectation {
            attempts: u8::try_from(attempts).ok(),
            ..RetryExpectation::default()
        });
    }
    let mut fields = Fields::of(node, errors)?;
    let on = fields.take("on").map(|node| match &node.value {
        Value::List(items) => texts(items, errors),
        _ => text(node, errors)
            .map(|all| all.split(',').map(|one| one.trim().to_owned()).collect())
            .unwrap_or_default(),
    });
    let found = RetryExpectation {
        attempts: fields.integer("attempts"),
        per_try_timeout: fields.take("per_try_timeout").and_then(|node| limit(node, errors)),
        on,
        backoff: fields.take("backoff").and_then(|node| duration(node, errors)),
    };
    fields.finish();
    Some(found)
}

/// `none`, or `delay` and `abort`, each with its share (`delay: 5s`, `delay_percent: 10`).
fn fault(node: &Node, errors: &Errors) -> Option<FaultExpectation> {
    if node.as_text() == Some("none") {
        return Some(FaultExpectation::default());
    }
    let mut fields = Fields::of(node, errors)?;
    let delay = fields.take("delay").and_then(|node| duration(node, errors));
    let abort = fields.text("abort");
    let common = fields.take("percent").and_then(|node| percent(node, errors));
    let delay_share = fields.take("delay_percent").and_then(|node| percent(node, errors)).or(common);
    let abort_share = fields.take("abort_percent").and_then(|node| percent(node, errors)).or(common);
    fields.finish();
    if delay.is_none() && abort.is_none() {
        errors.add(node.at, "a fault has a `delay`, an `abort` or both; `fault: none` is none");
    }
    Some(FaultExpectation {
        delay: delay.map(|delay| (delay_share.unwrap_or(100.0), delay)),
        abort: abort.map(|abort| (abort_share.unwrap_or(100.0), abort)),
    })
}

/// `true`, the policy's name, or `{policy, rule}`.
fn denied(node: &Node, errors: &Errors) -> Option<DenialExpectation> {
    match &node.value {
        Value::Bool(true) => return Some(DenialExpectation::default()),
        Value::Text(policy) => {
            return Some(DenialExpectation { policy: Some(policy.clone()), rule: None });
        }
        Value::Bool(false) => {
            errors.add(node.at, "write `allowed: true`");
            return None;
        }
        _ => {}
    }
    let mut fields = Fields::of(node, errors)?;
    let found = DenialExpectation { policy: fields.text("policy"), rule: fields.integer("rule") };
    fields.finish();
    Some(found)
}

fn conditions(node: &Node, errors: &Errors) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (object, conditions) in entries(node, errors) {
        let by_type = entries(conditions, errors).into_iter();
        let by_type = by_type.filter_map(|(name, value)| Some((name.to_owned(), text(value, errors)?)));
        found.insert(object.to_owned(), by_type.collect());
    }
    found
}

/// The same value as JSON.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}
