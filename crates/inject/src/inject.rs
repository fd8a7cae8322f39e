//! The pod as it is with a proxy.
//!
//! Invariants: nothing of the user's is lost or reordered: fields are added, and probes rewritten in place. The result
//! depends on the configuration, the namespace and the pod alone, so that offline and in the cluster it is the same.

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    Capture, Decision, InjectionConfig, Namespace, Reason,
    ask::{self, Asked},
    contract::{
        CAPTURE_ANNOTATION, CAPTURE_CONTAINER, METRICS_PORT, PROXY_CONTAINER, PROXY_UID, RESERVED_PORTS,
        REVISION, STATUS_ANNOTATION,
    },
    decide,
    json::{self, items, list, map},
    names, probes, sidecar,
};

/// What came of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a proxy.
    Injected(Injected),
    /// It stays as it is.
    Left(Reason),
}

/// A pod with its proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// Why it was injected.
    pub reason: Reason,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// Why a pod that should get a proxy is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("leno cannot inject this pod: {}", .problems.join("; "))]
pub struct Refusal {
    /// What is wrong, one by one.
    pub problems: Vec<String>,
}

/// Injects a pod, or a pod template, of `workload`, if it is to have a proxy.
///
/// # Errors
/// A pod that should have a proxy and asks for something that Leno does not honour, or that clashes with the proxy.
pub fn inject(
    config: &InjectionConfig,
    namespace: &Namespace,
    pod: &Value,
    workload: &str,
) -> Result<Outcome, Refusal> {
    let reason = match decide(config, namespace, pod) {
        Decision::Leave(reason) => return Ok(Outcome::Left(reason)),
        Decision::Inject(reason) => reason,
    };
    let (mut problems, mut warnings) = (clashes(pod), Vec::new());
    let asked = ask::ask(config, pod, &mut problems, &mut warnings);
    let mut injected = pod.clone();
    let mut originals = Map::new();
    if asked.rewrite_probes {
        let grace = ask::grace(pod);
        for container in containers_mut(&mut injected) {
            probes::rewrite(container, grace, &mut originals, &mut problems);
        }
    }
    if problems.is_empty()
        && let Err(problem) = add(config, &asked, originals, &mut injected)
            .and_then(|()| mark(config, &asked, workload, &mut injected, &mut warnings))
    {
        problems.push(problem);
    }
    if !problems.is_empty() {
        return Err(Refusal { problems });
    }
    Ok(Outcome::Injected(Injected { pod: injected, reason, warnings }))
}

/// What in the pod leaves no place for the proxy.
fn clashes(pod: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = &pod["spec"];
    if items(&spec["containers"]).is_empty() {
        problems.push("it has no containers".to_owned());
    }
    for container in ["initContainers", "containers"].into_iter().flat_map(|list| items(&spec[list])) {
        let name = container["name"].as_str().unwrap_or_default();
        if name == PROXY_CONTAINER || name == CAPTURE_CONTAINER {
            problems.push(format!(
                "it has a container {name} of its own; annotations change the proxy, containers do not"
            ));
        }
        for port in items(&container["ports"]) {
            let number = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
            if let Some(number) = number.filter(|number| RESERVED_PORTS.contains(number)) {
                problems.push(format!("container {name} declares port {number}, which is the proxy's"));
            }
        }
        if runs_as_proxy(spec, container) {
            problems.push(format!(
                "container {name} runs as user {PROXY_UID}, which is the proxy's: its traffic would not be captured"
            ));
        }
    }
    let volumes = sidecar::volumes();
    for volume in items(&spec["volumes"]) {
        if volumes.iter().any(|ours| ours["name"] == volume["name"]) {
            problems.push(format!("it has a volume {} of its own", volume["name"]));
        }
    }
    problems
}

fn runs_as_proxy(spec: &Value, container: &Value) -> bool {
    let own = container["securityContext"]["runAsUser"].as_u64();
    own.or_else(|| spec["securityContext"]["runAsUser"].as_u64()) == Some(u64::from(PROXY_UID))
}

fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    let lists = spec
        .into_iter()
        .flat_map(|spec| spec.iter_mut())
        .filter(|(field, _)| matches!(field.as_str(), "initContainers" | "containers"));
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten()
}

/// Adds containers and volumes.
fn add(
    config: &InjectionConfig,
    asked: &Asked,
    originals: Map<String, Value>,
    pod: &mut Value,
) -> Result<(), String> {
    let network =
        pod["metadata"]["labels"]["topology.istio.io/network"].as_str().unwrap_or(&config.network).to_owned();
    let spec = pod.get_mut("spec").ok_or("it has no spec")?;
    let mut first = Vec::new();
    if config.capture == Capture::Init {
        first.push(sidecar::capture(config, asked));
    }
    first.push(sidecar::proxy(config, asked, &network, originals));
    list(spec, "initContainers")?.splice(0..0, first);
    list(spec, "volumes")?.extend(sidecar::volumes());
    for secret in &config.image.pull_secrets {
        let secrets = list(spec, "imagePullSecrets")?;
        if !secrets.iter().any(|known| known["name"].as_str() == Some(secret)) {
            secrets.push(json!({ "name": secret }));
        }
    }
    Ok(())
}

/// Writes labels and annotations.
fn mark(
    config: &InjectionConfig,
    asked: &Asked,
    workload: &str,
    pod: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    map(pod, "metadata")?;
    let metadata = &mut pod["metadata"];
    let labels = json::strings(&metadata["labels"]);
    let said = map(metadata, "labels")?;
    for (label, value) in [
        (names::NAME, names::name(&labels, workload)),
        (names::REVISION, names::revision(&labels)),
        ("security.istio.io/tlsMode", tls_mode(config).to_owned()),
    ] {
        if !value.is_empty() {
            said.entry(label).or_insert_with(|| json!(value));
        }
    }
    let annotations = map(metadata, "annotations")?;
    if asked.scrape {
        scrape(annotations, warnings);
    }
    annotations.insert(REVISION.to_owned(), json!(config.revision));
    if config.capture == Capture::Cni {
        let arguments = json!(asked.captured.arguments());
        annotations.insert(CAPTURE_ANNOTATION.to_owned(), json!(arguments.to_string()));
    }
    annotations.insert(STATUS_ANNOTATION.to_owned(), json!(status(config).to_string()));
    Ok(())
}

/// What a live Istio's clients are told of the pod: they would send their mTLS to the application's port, which Leno does not
/// end there. Tools select pods by whether the label is there, so it is.
fn tls_mode(config: &InjectionConfig) -> &'static str {
    if config.istio_labels { "istio" } else { "disabled" }
}

/// Tells Prometheus where the proxy's metrics are, unless the application's own are announced.
fn scrape(annotations: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    if annotations.contains_key("prometheus.io/scrape") {
        let message = format!(
            "the pod's own prometheus.io annotations are kept; the proxy's metrics are at :{METRICS_PORT}/stats/prometheus"
        );
        return warnings.push(message);
    }
    for (key, value) in
        [("scrape", "true"), ("port", &METRICS_PORT.to_string()), ("path", "/stats/prometheus")]
    {
        annotations.insert(format!("prometheus.io/{key}"), json!(value));
    }
}

/// What was injected, for `kubectl` users, consoles and `leno check`.
fn status(config: &InjectionConfig) -> Value {
    let capture = (config.capture == Capture::Init).then_some(CAPTURE_CONTAINER);
    let containers: Vec<&str> = capture.into_iter().chain([PROXY_CONTAINER]).collect();
    let volumes = sidecar::volumes().map(|volume| volume["name"].clone());
    json!({
        "version": config.version,
        "revision": config.revision,
        "initContainers": containers,
        "containers": [],
        "volumes": volumes,
        "imagePullSecrets": config.image.pull_secrets,
    })
}
