//! `LENO_PROXY_CONFIG`: what may be set for one proxy, as the injector writes it. Unknown keys are refused.

use std::{collections::BTreeMap, thread};

use leno_model::Millis;
use leno_proxy::{
    app_health::Probe,
    bootstrap::{AccessLog, Tracing},
};
use serde::Deserialize;

/// More threads than this help no proxy.
const MOST_THREADS: usize = 64;

/// See the module.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Threads for traffic.
    pub(crate) concurrency: Concurrency,
    /// How long requests may go on once the proxy is told to stop.
    pub(crate) drain_duration: Span,
    /// What is logged, as in `LENO_LOG`.
    pub(crate) log_level: String,
    /// Access log: `off`, `text` or `json`.
    pub(crate) access_log: AccessLog,
    /// Spans.
    pub(crate) tracing: Option<Tracing>,
    /// The probes of the pod's containers that are asked for at the proxy.
    pub(crate) probes: BTreeMap<String, Probe>,
}

/// Threads; 0 is as many as the machine or the container's quota has.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Concurrency(usize);

/// A time with its units, as `45s` or `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Millis);

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: Concurrency(1),
            drain_duration: Span(Millis(45_000)),
            log_level: "info".to_owned(),
            access_log: AccessLog::Off,
            tracing: None,
            probes: BTreeMap::new(),
        }
    }
}

impl Concurrency {
    /// How many threads that is here.
    pub(crate) fn threads(self) -> usize {
        match self.0 {
            0 => thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
            count => count.min(MOST_THREADS),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = || format!("{text:?} is no time such as 45s or 1m30s");
        let mut rest = text.as_str();
        let mut total = 0_u64;
        if rest.is_empty() {
            return Err(problem());
        }
        while !rest.is_empty() {
            let digits = rest.find(|at: char| !at.is_ascii_digit()).ok_or_else(problem)?;
            let (number, tail) = rest.split_at(digits);
            let end = tail.find(|at: char| at.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let millis = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(problem()),
            };
            let number: u64 = number.parse().map_err(|_| problem())?;
            total =
                number.checked_mul(millis).and_then(|more| total.checked_add(more)).ok_or_else(problem)?;
            rest = tail;
        }
        Ok(Self(Millis(total)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let read = |text: &str| Span::try_from(text.to_owned());
        assert_eq!(read("45s").unwrap(), Span(Millis(45_000)));
        assert_eq!(read("1h2m3s4ms").unwrap(), Span(Millis(3_723_004)));
        for bad in ["", "45", "s", "1.5s", "-1s", "99999999999999999999s", "5 s"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
