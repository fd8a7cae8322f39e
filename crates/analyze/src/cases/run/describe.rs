//! Model values as a case writes them.

use std::collections::BTreeMap;

use leno_decide::Step;
use leno_model::{
    AbortWith, Fault, HeaderEdits, Listener, Percent, RetryCondition, RetryPolicy, ServiceId, TrafficPolicy,
    Workload,
};
use serde_json::{Value, json};

use crate::cases::observed::{ObservedFault, ObservedRetries};

pub(super) fn percent(share: Percent) -> f64 {
    f64::from(share.parts_per_million()) / 10_000.0
}

pub(super) fn fault(fault: Option<&Fault>) -> ObservedFault {
    let Some(Fault { delay, abort }) = fault else { return ObservedFault::default() };
    let status = |with: AbortWith| match with {
        AbortWith::Http(status) => status.to_string(),
        AbortWith::Grpc(status) => format!("grpc {status}"),
    };
    ObservedFault {
        delay: delay.map(|(share, time)| (percent(share), time)),
        abort: abort.map(|(share, with)| (percent(share), status(with))),
    }
}

pub(super) fn retries(policy: &RetryPolicy) -> ObservedRetries {
    let RetryPolicy { attempts, per_try_timeout, on, backoff, explicit: _ } = policy;
    ObservedRetries {
        attempts: *attempts,
        per_try_timeout: *per_try_timeout,
        on: on.iter().map(|condition| condition_name(*condition)).collect(),
        backoff: *backoff,
    }
}

/// Envoy's name of a condition.
fn condition_name(condition: RetryCondition) -> String {
    let name = match condition {
        RetryCondition::ConnectFailure => "connect-failure",
        RetryCondition::RefusedStream => "refused-stream",
        RetryCondition::Reset => "reset",
        RetryCondition::ResetBeforeRequest => "reset-before-request",
        RetryCondition::ServerError => "5xx",
        RetryCondition::GatewayError => "gateway-error",
        RetryCondition::Conflict => "retriable-4xx",
        RetryCondition::Status(status) => return status.to_string(),
        RetryCondition::Cancelled => "cancelled",
        RetryCondition::DeadlineExceeded => "deadline-exceeded",
        RetryCondition::Internal => "internal",
        RetryCondition::ResourceExhausted => "resource-exhausted",
        RetryCondition::Unavailable => "unavailable",
    };
    name.to_owned()
}

/// A destination's policy as a case writes it: durations in milliseconds, shares in percent.
#[must_use]
pub fn policy(policy: &TrafficPolicy) -> Value {
    let TrafficPolicy { balancer, limits, outlier, locality, tls } = policy;
    let outlier = outlier.as_ref().map(|outlier| {
        let mut value = json!(outlier);
        value["max_ejected"] = json!(percent(outlier.max_ejected));
        value["min_health"] = json!(percent(outlier.min_health));
        whole(value)
    });
    json!({
        "balancer": balancer,
        "limits": limits,
        "outlier": outlier,
        "locality": locality,
        "tls": tls,
    })
}

/// What a workload's own proxy is told about it, but for the places that it comes from and the policies that select it.
#[must_use]
pub fn workload(workload: &Workload) -> Value {
    json!({
        "identity": workload.identity,
        "network": workload.network,
        "locality": workload.locality,
        "owner": workload.owner,
        "canonical_name": workload.canonical_name,
        "canonical_revision": workload.canonical_revision,
    })
}

/// A listener without its routes.
#[must_use]
pub fn listener(listener: &Listener) -> Value {
    json!({
        "name": listener.name,
        "port": listener.port,
        "host": listener.host.to_string(),
        "protocol": listener.protocol,
    })
}

/// Numbers without a fraction as whole numbers, so that `10.0` equals the `10` of a case.
fn whole(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        for field in fields.values_mut() {
            if let Some(number) = field.as_f64()
                && number.fract() == 0.0
                && (0.0..=1e15).contains(&number)
            {
                *field = json!(number as u64);
            }
        }
    }
    value
}

/// All names that a case may use for a service's port or a subset of it; the first is the usual one.
pub(super) fn names(service: &ServiceId, port: u16, subset: Option<&str>) -> Vec<String> {
    let short = service.short_name();
    let bases = [short.to_owned(), format!("{short}.{}", service.namespace), service.host.to_string()];
    let with_port = bases.iter().flat_map(|base| [base.clone(), format!("{base}:{port}")]);
    match subset {
        Some(subset) => with_port.map(|base| format!("{base}/{subset}")).collect(),
        None => with_port.collect(),
    }
}

/// Applies header edits as the proxy does: set, add, remove.
pub(super) fn edit(headers: &mut BTreeMap<String, String>, edits: &HeaderEdits) {
    let HeaderEdits { set, add, remove } = edits;
    for (name, value) in set {
        headers.insert(name.to_ascii_lowercase(), value.to_string());
    }
    for (name, value) in add {
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|known| {
                known.push(',');
                known.push_str(value);
            })
            .or_insert_with(|| value.to_string());
    }
    for name in remove {
        headers.remove(&name.to_ascii_lowercase());
    }
}

/// A step of a trace in one line.
pub(super) fn step(step: &Step) -> String {
    let Step { held, what, origin } = step;
    format!("{} {what}: {origin}", if *held { "+" } else { "-" })
}
