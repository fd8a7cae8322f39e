//! What a runner saw of a case.
//!
//! Invariant: `None` means that this runner cannot see it, or, for one that is [`Observed::complete`], that it did not happen.
//! A thing that is seen to be absent is `Some` of nothing.

use std::collections::BTreeMap;

use leno_apis::Diagnostic;
use leno_compile::{ObjectKey, ObjectStatus};
use leno_model::Millis;
use serde::Serialize;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An application got it.
    Forwarded,
    /// A proxy answered: a redirect, a direct response, or an error that the routes ask for.
    Answered,
    /// No route matches.
    NoRoute,
    /// Refused by policy.
    Denied,
    /// Refused because the server wants mTLS.
    PlaintextRefused,
    /// To no service of the mesh, as it is.
    Passthrough,
    /// No endpoint can take it.
    Unavailable,
    /// Of the servers that it may reach some get it and others refuse it.
    Mixed,
}

/// A share of the requests and where it goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObservedBackend {
    /// In percent.
    pub share: f64,
    /// All the names that a case may use for it: `reviews`, `reviews.shop`, `reviews:9080`, `reviews/v1`.
    pub names: Vec<String>,
    /// The workloads that own its endpoints, with their part of the share in percent.
    pub owners: BTreeMap<String, f64>,
}

/// Faults, as the proxy would inject them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ObservedFault {
    /// Share in percent, and how long.
    pub delay: Option<(f64, Millis)>,
    /// Share in percent, and the status.
    pub abort: Option<(f64, String)>,
}

/// Retries, as the proxy would do them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObservedRetries {
    /// Attempts after the first.
    pub attempts: u8,
    /// Limit of one attempt.
    pub per_try_timeout: Option<Millis>,
    /// Conditions, by Envoy's names.
    pub on: Vec<String>,
    /// First pause.
    pub backoff: Millis,
}

/// Who refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObservedDenial {
    /// `namespace/name`; `None` when no ALLOW policy permits.
    pub policy: Option<String>,
    /// The number of the rule.
    pub rule: Option<u32>,
}

/// What a runner saw.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Whether this runner sees everything: then what is `None` did not happen, and expecting it fails.
    pub complete: bool,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The status that the caller got.
    pub status: Option<u16>,
    /// The `location` header.
    pub location: Option<Option<String>>,
    /// The body of a direct response.
    pub body: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Where it went.
    pub backends: Option<Vec<ObservedBackend>>,
    /// By how many percentage points shares may be off: 0 for one who computes them.
    pub tolerance: f64,
    /// Path and query that the application received.
    pub forwarded_path: Option<String>,
    /// The authority that it received.
    pub forwarded_host: Option<String>,
    /// The headers that it received, repeated ones joined with `,`.
    pub forwarded_headers: Option<BTreeMap<String, String>>,
    /// The headers that the caller received, as far as the mesh sets them.
    pub response_headers: Option<BTreeMap<String, String>>,
    /// The limit of the whole request.
    pub timeout: Option<Option<Millis>>,
    /// The limit of one attempt.
    pub attempt_timeout: Option<Option<Millis>>,
    /// Retries.
    pub retries: Option<ObservedRetries>,
    /// Faults.
    pub fault: Option<ObservedFault>,
    /// Mirrors; each share is that of all requests.
    pub mirrors: Option<Vec<ObservedBackend>>,
    /// Who refused.
    pub denial: Option<ObservedDenial>,
    /// Whether the hop to the application's proxy was mTLS.
    pub mtls: Option<bool>,
    /// What is spoken on the port.
    pub protocol: Option<String>,
    /// The destination's policy, one for each backend.
    pub destinations: Option<Vec<serde_json::Value>>,
    /// What the caller's own proxy is told about it.
    pub workload: Option<serde_json::Value>,
    /// The gateway's listener that took the request.
    pub listener: Option<serde_json::Value>,
    /// What was reported about the objects.
    pub diagnostics: Option<Vec<Diagnostic>>,
    /// The status of the objects.
    pub statuses: Option<BTreeMap<ObjectKey, ObjectStatus>>,
}

impl ObservedBackend {
    /// What a runner that only counts answers by the owning workload saw, in the terms of a prediction ([`super::run`]): a
    /// workload's share goes to the predicted backends that lead to it, in their proportion; an unpredicted one stands by itself.
    #[must_use]
    pub fn from_counts(predicted: &[Self], counts: &BTreeMap<String, u64>) -> Vec<Self> {
        let total = counts.values().sum::<u64>().max(1) as f64;
        let seen = |owner: &str| counts.get(owner).copied().unwrap_or(0) as f64 * 100.0 / total;
        let expected =
            |owner: &str| predicted.iter().filter_map(|backend| backend.owners.get(owner)).sum::<f64>();
        let known = predicted.iter().map(|backend| {
            let owners: BTreeMap<String, f64> = backend
                .owners
                .iter()
                .filter(|(_, share)| **share > 0.0)
                .map(|(owner, share)| (owner.clone(), seen(owner) * share / expected(owner)))
                .collect();
            Self { share: owners.values().sum(), names: backend.names.clone(), owners }
        });
        let unpredicted = counts.keys().filter(|owner| expected(owner) <= 0.0).map(|owner| Self {
            share: seen(owner),
            names: vec![owner.clone()],
            owners: BTreeMap::from([(owner.clone(), seen(owner))]),
        });
        known.chain(unpredicted).collect()
    }
}
