//! What one pod's proxy is to be like: the defaults and what the pod's annotations ask for.
//!
//! Invariant: collects every problem, so that a pod is refused once, with all reasons.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    AccessLog, InjectionConfig, Resources, Tracing, annotations,
    capture::{self, Captured},
    decide, duration,
    json::{self, items},
    proxy_config, quantity,
};

/// What one pod's proxy is to be like.
pub(crate) struct Asked {
    pub(crate) resources: Resources,
    pub(crate) log_level: String,
    pub(crate) concurrency: u16,
    pub(crate) drain: Duration,
    pub(crate) access_log: AccessLog,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) rewrite_probes: bool,
    pub(crate) readiness: Readiness,
    pub(crate) captured: Captured,
    pub(crate) scrape: bool,
}

/// The proxy's readiness probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) initial_delay: u32,
    pub(crate) period: u32,
    pub(crate) failure_threshold: u32,
}

/// Longest drain.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);
/// What Kubernetes gives a pod that does not say.
const DEFAULT_GRACE: u64 = 30;

/// Reads a pod's annotations.
pub(crate) fn ask(
    config: &InjectionConfig,
    pod: &Value,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Asked {
    let annotations = json::strings(&pod["metadata"]["annotations"]);
    let labels = json::strings(&pod["metadata"]["labels"]);
    warnings.extend(decide::unclear(&labels).into_iter().map(|what| format!("label: {what}")));
    warnings.extend(decide::unclear(&annotations).into_iter().map(|what| format!("annotation: {what}")));
    annotations::judge(&annotations, problems, warnings);
    let wishes = annotations
        .get("proxy.istio.io/config")
        .map(|text| proxy_config::read(text, problems, warnings))
        .unwrap_or_default();
    let captured = capture::read(&annotations, problems);
    let defaults = &config.proxy;
    let mut reader = Reader { annotations: &annotations, problems };
    let drain = reader.drain(wishes.drain, &defaults.drain_duration, grace(pod));
    let asked = Asked {
        resources: reader.resources(&defaults.resources),
        log_level: reader.log_level(&defaults.log_level),
        concurrency: wishes.concurrency.unwrap_or(defaults.concurrency),
        drain,
        access_log: defaults.access_log,
        tracing: reader.tracing(defaults.tracing.as_ref(), wishes.sampling),
        rewrite_probes: reader.flag("sidecar.istio.io/rewriteAppHTTPProbers", true),
        readiness: Readiness {
            initial_delay: reader.number("initialDelaySeconds", 0, 0),
            period: reader.number("periodSeconds", 5, 1),
            failure_threshold: reader.number("failureThreshold", 3, 1),
        },
        captured,
        scrape: reader.flag("prometheus.istio.io/merge-metrics", true),
    };
    if !asked.rewrite_probes && has_network_probes(pod) {
        warnings.push("probes are not rewritten, as asked: under STRICT mTLS they fail".to_owned());
    }
    warnings.extend(shorter_grace(pod, drain));
    asked
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.annotations.get(key).map(String::as_str) {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                self.problems.push(format!("annotation {key}: `{other}` is neither true nor false"));
                default
            }
        }
    }

    fn number(&mut self, name: &str, default: u32, least: u32) -> u32 {
        let key = format!("readiness.status.sidecar.istio.io/{name}");
        let Some(text) = self.annotations.get(&key) else { return default };
        match text.trim().parse().ok().filter(|number| (least..=3600).contains(number)) {
            Some(number) => number,
            None => {
                self.problems.push(format!("annotation {key}: `{text}` is not between {least} and 3600"));
                default
            }
        }
    }

    fn log_level(&mut self, default: &str) -> String {
        let key = "sidecar.istio.io/logLevel";
        let Some(text) = self.annotations.get(key) else { return default.to_owned() };
        match text.as_str() {
            "trace" | "debug" | "info" | "warn" | "error" | "off" => text.clone(),
            "warning" => "warn".to_owned(),
            "critical" => "error".to_owned(),
            _ => {
                self.problems.push(format!(
                    "annotation {key}: `{text}` is none of trace, debug, info, warning, error, critical, off"
                ));
                default.to_owned()
            }
        }
    }

    /// Annotations about a resource replace both defaults of that resource, so that a request never exceeds a default limit.
    fn resources(&mut self, defaults: &Resources) -> Resources {
        let mut resources = defaults.clone();
        for (resource, name) in [("cpu", "CPU"), ("memory", "Memory")] {
            let request = self.quantity(&format!("sidecar.istio.io/proxy{name}"));
            let limit = self.quantity(&format!("sidecar.istio.io/proxy{name}Limit"));
            if let (Some((asked, request)), Some((allowed, limit))) = (&request, &limit)
                && request > limit
            {
                self.problems.push(format!(
                    "annotation sidecar.istio.io/proxy{name}: `{asked}` is more than the limit `{allowed}`"
                ));
            }
            if request.is_some() || limit.is_some() {
                resources.requests.remove(resource);
                resources.limits.remove(resource);
                resources.requests.extend(request.map(|(text, _)| (resource.to_owned(), text)));
                resources.limits.extend(limit.map(|(text, _)| (resource.to_owned(), text)));
            }
        }
        resources
    }

    fn quantity(&mut self, key: &str) -> Option<(String, f64)> {
        let text = self.annotations.get(key)?.trim();
        match quantity::parse(text) {
            Ok(value) => Some((text.to_owned(), value)),
            Err(why) => {
                self.problems.push(format!("annotation {key}: {why}"));
                None
            }
        }
    }

    fn drain(&mut self, asked: Option<Duration>, default: &str, grace: u64) -> Duration {
        let default = duration::parse(default).unwrap_or_else(|why| {
            self.problems.push(format!("the configuration's drainDuration: {why}"));
            Duration::ZERO
        });
        // Nobody asked for more than the pod has: it ends by itself a second before it would be killed.
        let drain = asked.unwrap_or_else(|| default.min(Duration::from_secs(grace.saturating_sub(1))));
        if drain > LONGEST_DRAIN {
            self.problems.push(
                "annotation proxy.istio.io/config: a drain of more than an hour is not supported".to_owned(),
            );
        }
        drain
    }

    fn tracing(&mut self, default: Option<&Tracing>, sampling: Option<f64>) -> Option<Tracing> {
        match (default, sampling) {
            (Some(default), Some(sampling)) => Some(Tracing { sampling, ..default.clone() }),
            (None, Some(_)) => {
                self.problems.push(
                    "annotation proxy.istio.io/config: tracing.sampling needs a collector, and the mesh has none \
                     (proxy.tracing.endpoint of the installation)"
                        .to_owned(),
                );
                None
            }
            (default, None) => default.cloned(),
        }
    }
}

/// The defaults: what a pod gets that asks for nothing and may take as long as it needs to end.
pub(crate) fn of_nobody(config: &InjectionConfig) -> Asked {
    let pod = json!({"spec": {"terminationGracePeriodSeconds": LONGEST_DRAIN.as_secs() + 1}});
    // Without annotations there is nothing to refuse.
    ask(config, &pod, &mut Vec::new(), &mut Vec::new())
}

fn has_network_probes(pod: &Value) -> bool {
    let containers = ["initContainers", "containers"].into_iter().flat_map(|list| items(&pod["spec"][list]));
    let mut probes = containers.flat_map(|container| {
        ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe])
    });
    probes.any(|probe| ["httpGet", "tcpSocket", "grpc"].iter().any(|kind| probe.get(kind).is_some()))
}

/// Seconds that a pod has to end.
pub(crate) fn grace(pod: &Value) -> u64 {
    pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE)
}

/// The proxy ends last, within the pod's grace period: a longer drain is cut.
fn shorter_grace(pod: &Value, drain: Duration) -> Option<String> {
    let grace = grace(pod);
    (Duration::from_secs(grace) < drain).then(|| {
        format!(
            "the drain of {} does not fit into terminationGracePeriodSeconds ({grace}) and will be cut",
            duration::write(drain)
        )
    })
}
