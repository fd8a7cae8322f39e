//! `proxy.istio.io/config`: the configuration of one pod's proxy.
//!
//! Invariant: a key that is not honoured is a problem that refuses the pod, with the key and the reason; a key whose value says
//! what is so anyway is accepted.
//! Must not know: what the mesh's defaults are.

use std::time::Duration;

use leno_apis::{
    closest,
    yaml::{self, Node, Value},
};

use crate::duration;

/// What a pod asks of its proxy.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wishes {
    pub(crate) concurrency: Option<u16>,
    pub(crate) drain: Option<Duration>,
    /// Share of traces, in 0..=1.
    pub(crate) sampling: Option<f64>,
}

/// Most threads that may be asked for.
const MOST_THREADS: i64 = 64;

/// Keys of Istio's `ProxyConfig` that are refused, and why.
const REFUSED: &[(&str, &str)] = &[
    ("configPath", "there is no Envoy"),
    ("binaryPath", "there is no Envoy"),
    ("serviceCluster", "names come from the pod's labels"),
    ("tracingServiceName", "names come from the pod's labels"),
    ("discoveryAddress", "a pod belongs to the control plane of its revision"),
    ("discoveryRefreshDelay", "discovery is a stream"),
    ("zipkinAddress", "spans are sent by OTLP"),
    ("statsdUdpAddress", "metrics are scraped"),
    ("envoyMetricsServiceAddress", "metrics are scraped"),
    ("envoyMetricsService", "metrics are scraped"),
    ("envoyAccessLogService", "the access log is on standard output"),
    ("availabilityZone", "the zone comes from the node's labels"),
    ("controlPlaneAuthPolicy", "the control plane always needs mTLS"),
    ("customConfigFile", "there is no Envoy bootstrap"),
    ("proxyBootstrapTemplatePath", "there is no Envoy bootstrap"),
    ("statNameLength", "there is no Envoy"),
    ("sds", "certificates come from the control plane"),
    ("proxyMetadata", "there is no metadata of Envoy's or of the agent's"),
    ("runtimeValues", "there are no runtime flags of Envoy's"),
    ("extraStatTags", "metrics have Istio's default labels"),
    ("proxyStatsMatcher", "there is no Envoy whose statistics it could choose"),
    ("statsCompression", "there is no Envoy"),
    ("gatewayTopology", "it is for gateways"),
    ("meshId", "the mesh is the control plane's"),
    ("readinessProbe", "the proxy is ready when its configuration and capture are"),
    ("caCertificatesPem", "trust comes from the control plane"),
    ("image", "there is one form of the proxy's image"),
    ("privateKeyProvider", "keys are made in the proxy"),
    ("proxyHeaders", "the proxy's headers are fixed"),
    ("fileFlushInterval", "there is no Envoy"),
    ("fileFlushMinSizeKb", "there is no Envoy"),
    ("connectionSettings", "use a DestinationRule"),
];

const HONOURED: [&str; 8] = [
    "concurrency",
    "drainDuration",
    "terminationDrainDuration",
    "holdApplicationUntilProxyStarts",
    "interceptionMode",
    "proxyAdminPort",
    "statusPort",
    "tracing",
];

/// Reads the annotation's text.
pub(crate) fn read(text: &str, problems: &mut Vec<String>, warnings: &mut Vec<String>) -> Wishes {
    let mut reader = Reader { wishes: Wishes::default(), termination: None, problems, warnings };
    let mut documents = yaml::documents(text);
    match (documents.pop(), documents.is_empty()) {
        (None, _) => {}
        (Some(Ok(Node { value: Value::Map(entries), .. })), true) => {
            for entry in &entries {
                reader.key(&camel(&entry.key), &entry.value);
            }
        }
        (Some(Err(problem)), _) => {
            reader.problem(&format!("line {}: {}", problem.at.line, problem.message));
        }
        _ => reader.problem("it is no mapping of keys to values"),
    }
    // What Istio does on termination is what draining is here; its other drain is that of a restart in place.
    let Reader { mut wishes, termination, .. } = reader;
    wishes.drain = termination.or(wishes.drain);
    wishes
}

struct Reader<'p> {
    wishes: Wishes,
    termination: Option<Duration>,
    problems: &'p mut Vec<String>,
    warnings: &'p mut Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, what: &str) {
        self.problems.push(format!("annotation proxy.istio.io/config: {what}"));
    }

    fn key(&mut self, key: &str, node: &Node) {
        let value = &node.value;
        match key {
            "concurrency" => match value {
                Value::Int(threads @ 0..=MOST_THREADS) => {
                    self.wishes.concurrency = u16::try_from(*threads).ok()
                }
                _ => self.problem(&format!("concurrency must be 0 (all cores) to {MOST_THREADS}")),
            },
            "drainDuration" => self.wishes.drain = self.duration(key, node),
            "terminationDrainDuration" => self.termination = self.duration(key, node),
            "holdApplicationUntilProxyStarts" => match value {
                Value::Bool(true) => {}
                Value::Bool(false) => self.warnings.push(
                    "proxy.istio.io/config: holdApplicationUntilProxyStarts has no effect: \
                     a native sidecar starts before the application"
                        .to_owned(),
                ),
                _ => self.problem("holdApplicationUntilProxyStarts must be true or false"),
            },
            "interceptionMode" if node.as_text() == Some("REDIRECT") => {}
            "interceptionMode" => self.problem("interceptionMode can only be REDIRECT"),
            "proxyAdminPort" if *value == Value::Int(15000) => {}
            "proxyAdminPort" => self.problem("proxyAdminPort can only be 15000"),
            "statusPort" if *value == Value::Int(15020) => {}
            "statusPort" => self.problem("statusPort can only be 15020"),
            "tracing" => self.tracing(node),
            _ => self.refused(key),
        }
    }

    fn duration(&mut self, key: &str, node: &Node) -> Option<Duration> {
        let read = node
            .as_text()
            .ok_or_else(|| "needs a duration such as `45s`".to_owned())
            .and_then(duration::parse);
        read.map_err(|why| self.problem(&format!("{key}: {why}"))).ok()
    }

    fn tracing(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else {
            return self.problem("tracing must be a mapping");
        };
        for entry in entries {
            let percent = match (camel(&entry.key).as_str(), &entry.value.value) {
                ("sampling", Value::Int(percent @ 0..=100)) => {
                    Some(f64::from(u8::try_from(*percent).unwrap_or(100)))
                }
                ("sampling", Value::Float(percent)) if (0.0..=100.0).contains(percent) => Some(*percent),
                _ => None,
            };
            match percent {
                Some(percent) => self.wishes.sampling = Some(percent / 100.0),
                None => self.problem(&format!(
                    "tracing.{} is not supported; tracing.sampling, a percentage, is",
                    entry.key
                )),
            }
        }
    }

    fn refused(&mut self, key: &str) {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
            return self.problem(&format!("{key} is not supported: {why}"));
        }
        let known = HONOURED.into_iter().chain(REFUSED.iter().map(|(key, _)| *key));
        let hint = closest(key, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        self.problem(&format!("{key} is unknown{hint}"));
    }
}

/// `drain_duration` as `drainDuration`: the JSON form of a proto accepts both.
fn camel(key: &str) -> String {
    let mut words = key.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (Wishes, Vec<String>, Vec<String>) {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        (read(text, &mut problems, &mut warnings), problems, warnings)
    }

    #[test]
    fn concurrency_drain_and_sampling_are_honoured_in_either_spelling_and_as_json() {
        let (wishes, problems, _) =
            told("concurrency: 2\nterminationDrainDuration: 20s\ntracing: {sampling: 10}\n");
        assert_eq!(problems, Vec::<String>::new());
        let expected =
            Wishes { concurrency: Some(2), drain: Some(Duration::from_secs(20)), sampling: Some(0.1) };
        assert_eq!(wishes, expected);
        let (wishes, _, _) = told(r#"{"drain_duration": "1500ms", "holdApplicationUntilProxyStarts": true}"#);
        assert_eq!(wishes.drain, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_happens_on_termination_wins_over_what_happens_on_a_restart_in_place() {
        let (wishes, _, _) = told("terminationDrainDuration: 7s\ndrainDuration: 45s");
        assert_eq!(wishes.drain, Some(Duration::from_secs(7)));
    }

    #[test]
    fn keys_that_are_not_honoured_are_problems_with_a_reason() {
        for (text, said) in [
            ("proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}", "proxyMetadata is not supported"),
            ("concurency: 2", "concurency is unknown; did you mean concurrency?"),
            ("concurrency: many", "concurrency must be 0"),
            ("drainDuration: 45", "drainDuration: needs a duration"),
            ("statusPort: 1", "statusPort can only be 15020"),
            ("interceptionMode: TPROXY", "interceptionMode can only be REDIRECT"),
            ("tracing: {zipkin: {address: a}}", "tracing.zipkin is not supported"),
            ("[1]", "no mapping"),
            ("a: b: c", "line 1"),
        ] {
            let (_, problems, _) = told(text);
            assert!(problems.iter().any(|problem| problem.contains(said)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn not_holding_the_application_is_reported() {
        let (_, problems, warnings) = told("holdApplicationUntilProxyStarts: false");
        assert!(problems.is_empty());
        assert_eq!(warnings.len(), 1);
    }
}
