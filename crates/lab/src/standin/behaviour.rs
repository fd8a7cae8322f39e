//! What an optional file says about stand-ins: calls by path, latency, errors, sizes.
//!
//! ```yaml
//! workloads:
//! - app: reviews              # all of app, version and namespace that are given must match; the first entry that does is used
//!   version: v2
//!   behaviour:
//!     text: black stars       # shown in every answer
//!     latency: 5ms            # or {uniform: [1ms, 10ms]}, or {median: 5ms, p99: 80ms} (log-normal)
//!     errorRate: 0.01         # share of requests that answer errorStatus (503)
//!     errorStatus: 503
//!     bodyBytes: 2000         # padding of the answer
//!     failWhenCallsFail: true # 502 instead of 200
//!     sequentialCalls: true   # one call after another instead of all at once
//!     environmentCalls: false # paths without calls of their own do not call what the environment names
//!     hopLimit: 8
//!     callDeadline: 5s
//!     paths:                  # the longest match wins; its fields win over those above
//!     - path: /reviews/       # itself and what is below when it ends with `/` or `*`, else itself alone
//!       calls:
//!       - target: ratings:9080
//!         path: /ratings/0
//!         protocol: http      # or grpc, tcp
//!         deadline: 3s
//!         tries: 2            # until a 2xx
//! ```
//!
//! Invariant: unknown fields are errors. Must not know: sockets.

use std::fmt;
use std::time::Duration;

use leno_apis::yaml::{self, Node, Value};
use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize};

use super::calls::CallProtocol;

/// The behaviour of the original Bookinfo services.
const BOOKINFO: &str = include_str!("bookinfo.yaml");

/// A behaviour file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehaviourFile {
    /// Entries, first match wins.
    #[serde(default)]
    pub workloads: Vec<WorkloadBehaviour>,
}

/// One entry of a file: what must match, and what holds then.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadBehaviour {
    /// The `app` label.
    pub app: Option<String>,
    /// The `version` label.
    pub version: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// How these workloads behave.
    #[serde(default)]
    pub behaviour: Behaviour,
}

/// How a stand-in behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Behaviour {
    /// Shown in every answer.
    pub text: Option<String>,
    /// How long an answer takes, before the stand-in's own calls.
    pub latency: Latency,
    /// Share of requests that fail, 0 to 1.
    pub error_rate: f64,
    /// What these answer.
    pub error_status: u16,
    /// Padding of an answer, in bytes.
    pub body_bytes: usize,
    /// A failed call makes the answer a 502.
    pub fail_when_calls_fail: bool,
    /// Calls one after another instead of all at once.
    pub sequential_calls: bool,
    /// Paths without calls of their own call what the environment names.
    pub environment_calls: bool,
    /// How many hops a request without a hop header may take.
    pub hop_limit: u8,
    /// How long one try of a call may take.
    #[serde(deserialize_with = "duration")]
    pub call_deadline: Duration,
    /// Exceptions by path.
    pub paths: Vec<PathBehaviour>,
}

/// What holds for a path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PathBehaviour {
    /// A path; with `/` or `*` at its end, everything below too.
    pub path: String,
    /// Calls instead of those of the environment.
    pub calls: Option<Vec<CallBehaviour>>,
    /// As in [`Behaviour`].
    pub text: Option<String>,
    /// As in [`Behaviour`].
    pub latency: Option<Latency>,
    /// As in [`Behaviour`].
    pub error_rate: Option<f64>,
    /// As in [`Behaviour`].
    pub error_status: Option<u16>,
    /// As in [`Behaviour`].
    pub body_bytes: Option<usize>,
}

/// A call that a path makes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallBehaviour {
    /// Host and port.
    pub target: String,
    /// The path, `/` without it.
    #[serde(default = "root")]
    pub path: String,
    /// HTTP without it.
    #[serde(default)]
    pub protocol: CallProtocol,
    /// How long a try may take; `callDeadline` without it.
    #[serde(default, deserialize_with = "optional_duration")]
    pub deadline: Option<Duration>,
    /// Tries until one succeeds.
    #[serde(default = "once")]
    pub tries: u32,
}

/// A fixed time or a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Evenly between two times.
    Uniform(Duration, Duration),
    /// Log-normal: the median and the 99th percentile.
    LogNormal(Duration, Duration),
}

/// Why a behaviour file was refused.
#[derive(Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct BehaviourError {
    /// Line and column, or the field, and what is wrong.
    pub message: String,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            text: None,
            latency: Latency::default(),
            error_rate: 0.0,
            error_status: 503,
            body_bytes: 0,
            fail_when_calls_fail: false,
            sequential_calls: false,
            environment_calls: true,
            hop_limit: 8,
            call_deadline: Duration::from_secs(5),
            paths: Vec::new(),
        }
    }
}

impl BehaviourFile {
    /// Reads YAML or JSON; the entries of several documents follow one another.
    pub fn parse(text: &str) -> Result<Self, BehaviourError> {
        let mut file = Self::default();
        for document in yaml::documents(text) {
            let node = document.map_err(|problem| BehaviourError {
                message: format!("{}:{}: {}", problem.at.line, problem.at.column, problem.message),
            })?;
            let part: Self = serde_json::from_value(json(&node)).map_err(|error| BehaviourError {
                message: format!("document at line {}: {error}", node.at.line),
            })?;
            file.workloads.extend(part.workloads);
        }
        Ok(file)
    }

    /// The calls, deadlines and tries of the original Bookinfo services.
    pub fn bookinfo() -> Result<Self, BehaviourError> {
        Self::parse(BOOKINFO)
    }

    /// The behaviour of a workload: the first entry that matches, else the default.
    #[must_use]
    pub fn for_workload(&self, namespace: &str, app: &str, version: &str) -> Behaviour {
        let says = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let entry = self.workloads.iter().find(|entry| {
            says(&entry.namespace, namespace) && says(&entry.app, app) && says(&entry.version, version)
        });
        entry.map(|entry| entry.behaviour.clone()).unwrap_or_default()
    }
}

impl Behaviour {
    /// What holds for a path: the longest match.
    #[must_use]
    pub fn for_path(&self, path: &str) -> Option<&PathBehaviour> {
        self.paths.iter().filter(|rule| rule.matches(path)).max_by_key(|rule| rule.path.len())
    }
}

impl PathBehaviour {
    fn matches(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path || (self.path.ends_with('/') && path.starts_with(&self.path)),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl Latency {
    /// One time of the distribution; at most a minute.
    #[must_use]
    pub fn sample(&self, rng: &mut impl Rng) -> Duration {
        let time = match *self {
            Self::Fixed(time) => time,
            Self::Uniform(low, high) => low + high.saturating_sub(low).mul_f64(rng.random::<f64>()),
            Self::LogNormal(median, p99) => {
                // 2.326 standard deviations are the 99th percentile; Box and Muller's method gives the normal variable.
                let sigma = (p99.as_secs_f64() / median.as_secs_f64().max(1e-9)).max(1.0).ln() / 2.326;
                let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                Duration::try_from_secs_f64(median.as_secs_f64() * (sigma * normal).exp()).unwrap_or(p99)
            }
        };
        time.min(Duration::from_secs(60))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, deny_unknown_fields)]
        enum Written {
            Fixed(String),
            Uniform { uniform: (String, String) },
            LogNormal { median: String, p99: String },
        }
        let read =
            |text: &str| parse_duration(text).ok_or_else(|| serde::de::Error::custom(NotADuration(text)));
        Ok(match Written::deserialize(deserializer)? {
            Written::Fixed(time) => Self::Fixed(read(&time)?),
            Written::Uniform { uniform: (low, high) } => Self::Uniform(read(&low)?, read(&high)?),
            Written::LogNormal { median, p99 } => Self::LogNormal(read(&median)?, read(&p99)?),
        })
    }
}

struct NotADuration<'a>(&'a str);

impl fmt::Display for NotADuration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a duration such as 100ms or 2.5s", self.0)
    }
}

/// `100ms`, `2.5s`, `10us`, `1m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| serde::de::Error::custom(NotADuration(&text)))
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn root() -> String {
    "/".to_owned()
}

fn once() -> u32 {
    1
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(int) => (*int).into(),
        Value::Float(float) => (*float).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn bookinfo_behaves_as_the_original() {
        let file = BehaviourFile::bookinfo().unwrap();
        let page = file.for_workload("default", "productpage", "v1");
        let calls = page.for_path("/productpage").unwrap().calls.as_deref().unwrap();
        assert_eq!(calls[1].target, "reviews:9080");
        assert_eq!((calls[1].deadline, calls[1].tries), (Some(Duration::from_secs(3)), 2));
        let quiet = file.for_workload("default", "reviews", "v1");
        assert!(quiet.for_path("/reviews/0").unwrap().calls.as_ref().unwrap().is_empty());
        let starry = file.for_workload("default", "reviews", "v3");
        assert_eq!(starry.for_path("/reviews/0").unwrap().calls.as_ref().unwrap()[0].path, "/ratings/0");
    }

    #[test]
    fn unknown_fields_and_bad_durations_are_errors() {
        for (text, says) in [
            ("workloads: [{behaviour: {latncy: 5ms}}]", "latncy"),
            ("workloads: [{behaviour: {callDeadline: fast}}]", "fast"),
            ("workloads: [", "1:"),
        ] {
            let error = BehaviourFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_log_normal_latency_has_its_median_and_tail() {
        let latency = Latency::LogNormal(Duration::from_millis(5), Duration::from_millis(50));
        let mut rng = SmallRng::seed_from_u64(7);
        let mut times: Vec<_> = (0..10_000).map(|_| latency.sample(&mut rng)).collect();
        times.sort();
        assert!((4..=6).contains(&times[5_000].as_millis()), "{:?}", times[5_000]);
        assert!((40..=65).contains(&times[9_900].as_millis()), "{:?}", times[9_900]);
    }
}
