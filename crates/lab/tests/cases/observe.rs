//! What calls and applications show, as an [`Observed`] that the one judge of cases compares.
//!
//! Invariant: what did not show is `None`, and is not judged; nothing is taken from the prediction but names.

use std::{collections::BTreeMap, net::IpAddr};

use leno_analyze::cases::{
    Expect, Observed, ObservedBackend, ObservedFault, Outcome, Target, describe_policy,
};

use crate::{
    call::{Answer, Ended},
    evidence::{self, Counted},
    measure,
    rig::Rig,
    way::Ways,
};

/// How proxies stood before a case's calls.
pub(crate) struct Before {
    pub(crate) counted: Counted,
    pub(crate) millis: u64,
}

impl Before {
    pub(crate) async fn of(rig: &Rig) -> Self {
        Self { counted: Counted::of(rig).await, millis: evidence::now_millis() }
    }
}

/// What the calls of a case show.
pub(crate) async fn calls(
    rig: &Rig,
    (expect, target): (&Expect, &Target),
    (predicted, ways): (&Observed, &Ways),
    before: &Before,
    ended: &[Ended],
) -> Observed {
    let mut observed = Observed {
        tolerance: expect
            .backends
            .iter()
            .flatten()
            .map(|it| measure::tolerance(*it.1, ended.len()))
            .fold(0.0, f64::max),
        backends: measure::backends(predicted, expect, ended),
        fault: fault(rig, (expect, target), ways, ended).await,
        ..Observed::default()
    };
    let after = Counted::of(rig).await;
    let refused = after.plaintext_refused > before.counted.plaintext_refused;
    let is_http = matches!(target, Target::Http { .. });
    for ended in ended {
        let outcome = outcome(rig, ended, (is_http, ways.known), refused, before.millis, &mut observed).await;
        // Faults and shares without an endpoint are counted apart.
        let mixed = observed.outcome.is_some_and(|known| known != outcome);
        observed.outcome = Some(if mixed { Outcome::Mixed } else { outcome });
    }
    if let Some(answer) = ended.iter().find_map(Ended::answer) {
        if is_http {
            head(answer, &mut observed);
        } else if answer.seen.is_some() {
            let (mtls, plain) =
                (after.tcp_mtls - before.counted.tcp_mtls, after.tcp_plain - before.counted.tcp_plain);
            observed.mtls = (mtls + plain > 0.0).then_some(plain <= 0.0);
        }
    }
    observed
}

async fn outcome(
    rig: &Rig,
    ended: &Ended,
    (is_http, known): (bool, bool),
    refused: bool,
    since: u64,
    observed: &mut Observed,
) -> Outcome {
    if let Some(seen) = ended.seen() {
        // What passes by the mesh is as the caller sent it.
        let as_it_is = !seen.headers.contains_key("x-request-id");
        return if as_it_is && !known { Outcome::Passthrough } else { Outcome::Forwarded };
    }
    let told = ended.answer().and_then(|answer| answer.headers.get("x-leno-denial"));
    let denial = match told {
        Some(id) => evidence::denial(rig, id).await,
        None if !is_http => evidence::denial_since(rig, since).await,
        None => None,
    };
    if told.is_some() || denial.is_some() {
        observed.denial = denial;
        return Outcome::Denied;
    }
    if refused {
        return Outcome::PlaintextRefused;
    }
    let Some(answer) = ended.answer() else {
        // Why a handshake is refused is in the gateway's log; a client only sees that it is.
        observed.reason = (!is_http).then(|| ended.to_string());
        // A connection without a route is closed, and nothing more is said.
        return if is_http { Outcome::Unavailable } else { Outcome::NoRoute };
    };
    let grpc = answer.headers.get("grpc-status").map(String::as_str);
    observed.reason = Some(answer.body.trim().to_owned());
    match (answer.status, grpc) {
        (404, _) | (200, Some("12")) => Outcome::NoRoute,
        (503, _) | (200, Some("14")) => Outcome::Unavailable,
        _ => Outcome::Answered,
    }
}

/// Faults as callers feel them; which of the requests were delayed the caller's proxy has written down.
async fn fault(
    rig: &Rig,
    (expect, target): (&Expect, &Target),
    ways: &Ways,
    ended: &[Ended],
) -> Option<ObservedFault> {
    expect.fault.as_ref()?;
    let Target::Http { path, .. } = target else { return None };
    let lines = evidence::lines_about(rig, ways.client?, path, ended.len()).await;
    measure::fault(expect, ended, &lines)
}

/// What one answer to a request shows.
fn head(answer: &Answer, observed: &mut Observed) {
    let Answer { status, headers, body, seen, elapsed: _ } = answer;
    let is_grpc = headers.get("content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
    observed.status = (!is_grpc || seen.is_some()).then_some(*status);
    observed.location = Some(headers.get("location").cloned());
    observed.response_headers = Some(headers.clone());
    match seen {
        None => observed.body = Some(body.clone()),
        Some(seen) => {
            observed.forwarded_path = Some(seen.path.clone());
            observed.forwarded_host = Some(seen.host.clone());
            observed.forwarded_headers = Some(seen.headers.clone());
            // A server's proxy tells its application who the peer is, when it knows.
            observed.mtls = Some(seen.headers.contains_key("x-forwarded-client-cert"));
        }
    }
}

/// What is spoken on the port, when what reached the application agrees with what is published.
pub(crate) fn protocol(rig: &Rig, target: &Target, namespace: &str, ended: &[Ended]) -> Option<String> {
    let service = rig.published.service(target.host(), namespace)?;
    let port = service.ports.iter().find(|port| port.port == target.port())?;
    let seen = ended.iter().find_map(Ended::seen)?;
    let published = port.protocol.to_string();
    // A proxy that reads requests gives each an id.
    let read = seen.headers.contains_key("x-request-id");
    let fits = match published.as_str() {
        "http1" => read && seen.spoken == "http1",
        "http2" | "grpc" => read && seen.spoken == "http2",
        "tcp" => !read,
        "tls" => !read && seen.spoken == "tls",
        "detect" => read == seen.spoken.starts_with("http"),
        _ => false,
    };
    Some(if fits { published } else { format!("{} (published as {published})", seen.spoken) })
}

/// The policies of the predicted backends, as the caller's proxy has them.
pub(crate) async fn destinations(
    client: IpAddr,
    predicted: &[ObservedBackend],
) -> Option<Vec<serde_json::Value>> {
    let mut found = Vec::new();
    for backend in predicted {
        // The last name is the longest: `HOST:PORT` or `HOST:PORT/SUBSET`.
        let name = backend.names.last()?;
        let (name, subset) =
            name.split_once('/').map_or((name.as_str(), None), |(name, subset)| (name, Some(subset)));
        let (host, port) = name.rsplit_once(':')?;
        let destination = evidence::destination(client, host).await?;
        found.push(describe_policy(destination.policy_for(port.parse().ok()?, subset)));
    }
    Some(found)
}

/// What the control plane says of the objects: texts of diagnostics, and `TYPE` to `STATUS REASON` of each object.
pub(crate) struct Said {
    pub(crate) diagnostics: Vec<String>,
    pub(crate) conditions: BTreeMap<String, Vec<(String, String)>>,
}

impl Said {
    pub(crate) async fn of(rig: &Rig) -> Self {
        let diagnostics = rig.ask("/v1/diagnostics").await;
        let diagnostics = diagnostics["diagnostics"].as_array().unwrap().iter();
        let text = |it: &serde_json::Value| {
            format!("{}:{} {it}", it["at"]["file"].as_str().unwrap_or(""), it["at"]["line"])
        };
        let objects = rig.ask("/v1/objects").await;
        let mut conditions: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for object in objects["objects"].as_array().unwrap() {
            let word = |key: &str| object[key].as_str().unwrap_or("");
            let name = format!("{} {}/{}", word("kind"), word("namespace"), word("name"));
            conditions.insert(name, all_conditions(&object["status"]));
        }
        Self { diagnostics: diagnostics.map(text).collect(), conditions }
    }
}

/// Those of the object, its parents and its listeners.
fn all_conditions(status: &serde_json::Value) -> Vec<(String, String)> {
    let inner = ["parents", "listeners"].map(|key| status[key].as_array().cloned().unwrap_or_default());
    let holders = std::iter::once(status.clone()).chain(inner.into_iter().flatten());
    let mut found = Vec::new();
    for holder in holders {
        for it in holder["conditions"].as_array().into_iter().flatten() {
            let word = |key: &str| it[key].as_str().unwrap_or("");
            found.push((word("type").to_owned(), format!("{} {}", word("status"), word("reason"))));
        }
    }
    found
}
