//! What happens to a request: the first matching entry of an ordered table, and what its rule says.
//!
//! Invariant: nothing is rolled here. A weighted split is handed out whole as a [`Distribution`]; the proxy picks from it and
//! `explain` shows every branch. Matching allocates nothing; only redirects and rewrites make text.

use std::sync::Arc;

use leno_model::{Action, Backend, Fault, HttpRoutes, HttpRule, Millis, Origin, Percent};

use crate::{
    facts::RequestFacts,
    matching::{BadPattern, Mismatch, RequestTest},
    rewrite::{self, CompiledRewrite},
    tables::WhoAmI,
    trace::Trace,
};

/// A compiled [`HttpRoutes`].
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTable {
    entries: Vec<Entry>,
    rules: Vec<CompiledRule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    test: RequestTest,
    rule: usize,
    origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
struct CompiledRule {
    rule: Arc<HttpRule>,
    rewrite: Option<CompiledRewrite>,
    redirect: Option<CompiledRewrite>,
    total: u64,
}

impl HttpTable {
    /// Compiles a table.
    ///
    /// # Errors
    /// When a regular expression does not compile.
    pub fn compile(routes: &HttpRoutes) -> Result<Self, BadPattern> {
        let HttpRoutes { entries, rules } = routes;
        let entry = |entry: &leno_model::HttpEntry| {
            let leno_model::HttpEntry { matcher, rule, origin } = entry;
            Ok(Entry { test: RequestTest::compile(matcher)?, rule: *rule as usize, origin: origin.clone() })
        };
        Ok(Self {
            entries: entries.iter().map(entry).collect::<Result<_, BadPattern>>()?,
            rules: rules.iter().map(CompiledRule::compile).collect::<Result<_, _>>()?,
        })
    }

    /// Compiles a table that is known to have no regular expressions.
    pub(crate) fn without_patterns(routes: HttpRoutes) -> Self {
        Self::compile(&routes).unwrap_or(Self { entries: Vec::new(), rules: Vec::new() })
    }

    /// Its rules, in the order of the table.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<HttpRule>> {
        self.rules.iter().map(|compiled| &compiled.rule)
    }
}

impl CompiledRule {
    fn compile(rule: &HttpRule) -> Result<Self, BadPattern> {
        let path = rule.rewrite.path.as_ref().map(CompiledRewrite::compile).transpose()?;
        let redirect = match &rule.action {
            Action::Redirect(redirect) => redirect.path.as_ref().map(CompiledRewrite::compile).transpose()?,
            Action::Forward(_) | Action::Respond { .. } | Action::Fail { .. } => None,
        };
        let total = match &rule.action {
            Action::Forward(backends) => total(backends),
            Action::Redirect(_) | Action::Respond { .. } | Action::Fail { .. } => 0,
        };
        Ok(Self { rule: Arc::new(rule.clone()), rewrite: path, redirect, total })
    }
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum RouteOutcome<'r> {
    /// To one of these.
    Forward(Forward<'r>),
    /// Elsewhere.
    Redirect {
        /// The rule.
        rule: &'r Arc<HttpRule>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The value of `location`.
        location: String,
    },
    /// A fixed answer.
    Respond {
        /// The rule.
        rule: &'r Arc<HttpRule>,
        /// Status code.
        status: u16,
        /// Body; empty when none.
        body: &'r Arc<str>,
    },
    /// The rule cannot be followed.
    Fail {
        /// The rule.
        rule: &'r Arc<HttpRule>,
        /// Status code.
        status: u16,
        /// What is wrong.
        reason: &'r str,
    },
    /// No entry matches: 404.
    NoRoute,
}

/// A rule that forwards.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'r> {
    /// The rule: header edits, timeout, retries, fault, mirrors.
    pub rule: &'r Arc<HttpRule>,
    /// The match in the user's YAML.
    pub matched: &'r Origin,
    /// Where to, by weight.
    pub distribution: Distribution<'r>,
    test: &'r RequestTest,
    rewrite: Option<&'r CompiledRewrite>,
}

impl Forward<'_> {
    /// The path to send on; `None`: as it came. The query stays.
    pub fn path(&self, path: &str) -> Option<String> {
        self.rewrite.map(|rewrite| rewrite.apply(self.test.path.as_ref(), path))
    }

    /// The limit of one attempt to a backend: the least of the retry policy's and the backend's own.
    pub fn attempt_timeout(&self, backend: &Backend) -> Option<Millis> {
        match (self.rule.retry.per_try_timeout, backend.timeout) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }
}

/// Weighted backends. Weights sum to more than 0.
#[derive(Clone, Copy, Debug)]
pub struct Distribution<'r> {
    /// The backends, in the user's order.
    pub backends: &'r [Backend],
    total: u64,
}

impl<'r> Distribution<'r> {
    /// Of some backends; `None` when nothing has any weight.
    pub fn of(backends: &'r [Backend]) -> Option<Self> {
        let total = total(backends);
        (total > 0).then_some(Self { backends, total })
    }

    /// The backend that a uniform roll of 64 bits falls on.
    pub fn pick(&self, roll: u64) -> Option<&'r Backend> {
        let mut at = scale(roll, self.total);
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight.0);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }

    /// Each backend with its share of the requests in 0..=1.
    pub fn shares(&self) -> impl Iterator<Item = (&'r Backend, f64)> {
        let total = self.total as f64;
        self.backends.iter().map(move |backend| (backend, f64::from(backend.weight.0) / total))
    }
}

fn total(backends: &[Backend]) -> u64 {
    backends.iter().map(|backend| u64::from(backend.weight.0)).sum()
}

/// A uniform 64-bit roll as a uniform number below `bound`.
pub(crate) fn scale(roll: u64, bound: u64) -> u64 {
    ((u128::from(roll) * u128::from(bound)) >> 64) as u64
}

/// Decides what happens to a request. `port` is the port that the client addressed (a gateway: the listener's).
pub fn route<'r>(
    table: &'r HttpTable,
    caller: &WhoAmI,
    request: &RequestFacts<'_>,
    port: leno_model::Port,
    trace: &mut impl Trace,
) -> RouteOutcome<'r> {
    let Some(entry) = find(table, caller, request, trace) else { return RouteOutcome::NoRoute };
    let Some(compiled) = table.rules.get(entry.rule) else { return RouteOutcome::NoRoute };
    let rule = &compiled.rule;
    match &rule.action {
        Action::Forward(backends) if compiled.total == 0 => {
            // gateway-api: HTTPRouteRule backendRefs, "if all entries are invalid or there are none: 500".
            let reason = if backends.is_empty() { "the rule has no backend" } else { "all weights are 0" };
            RouteOutcome::Fail { rule, status: 500, reason }
        }
        Action::Forward(backends) => RouteOutcome::Forward(Forward {
            rule,
            matched: &entry.origin,
            distribution: Distribution { backends, total: compiled.total },
            test: &entry.test,
            rewrite: compiled.rewrite.as_ref(),
        }),
        Action::Redirect(redirect) => RouteOutcome::Redirect {
            rule,
            status: redirect.status,
            location: rewrite::location(
                redirect,
                compiled.redirect.as_ref(),
                entry.test.path.as_ref(),
                request,
                port,
            ),
        },
        Action::Respond { status, body } => RouteOutcome::Respond { rule, status: *status, body },
        Action::Fail { status, reason } => RouteOutcome::Fail { rule, status: *status, reason },
    }
}

fn find<'r>(
    table: &'r HttpTable,
    caller: &WhoAmI,
    request: &RequestFacts<'_>,
    trace: &mut impl Trace,
) -> Option<&'r Entry> {
    table.entries.iter().find(|entry| match entry.test.check(caller, request) {
        Ok(()) => {
            trace.step(true, &entry.origin, || "the match holds".to_owned());
            true
        }
        Err(field) => {
            trace.step(false, &entry.origin, || describe(&entry.test, field, request));
            false
        }
    })
}

fn describe(test: &RequestTest, field: Mismatch<'_>, request: &RequestFacts<'_>) -> String {
    let wanted = &test.source;
    match field {
        Mismatch::Path => format!("the path {:?} does not match {:?}", request.path, wanted.path),
        Mismatch::Method => format!("the method {} does not match {:?}", request.method, wanted.method),
        Mismatch::Scheme => format!("the scheme {} does not match {:?}", request.scheme, wanted.scheme),
        Mismatch::Authority => {
            format!("the authority {:?} does not match {:?}", request.authority, wanted.authority)
        }
        Mismatch::Header(name) => format!("the header {name:?} does not pass its test"),
        Mismatch::Query(name) => format!("the query parameter {name:?} does not pass its test"),
        Mismatch::SourceNamespace => "the caller is of another namespace".to_owned(),
        Mismatch::SourceLabels => "the caller does not have the labels".to_owned(),
    }
}

/// What an injected fault does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FaultOutcome {
    /// Held for this long first.
    pub delay: Option<Millis>,
    /// Then answered with this.
    pub abort: Option<leno_model::AbortWith>,
}

/// Decides a fault by two independent uniform rolls.
pub fn fault(fault: &Fault, delay_roll: u64, abort_roll: u64) -> FaultOutcome {
    let Fault { delay, abort } = fault;
    FaultOutcome {
        delay: delay.filter(|(share, _)| is_sampled(*share, delay_roll)).map(|(_, time)| time),
        abort: abort.filter(|(share, _)| is_sampled(*share, abort_roll)).map(|(_, with)| with),
    }
}

/// Whether a uniform 64-bit roll falls within a share (mirrors, faults).
pub fn is_sampled(share: Percent, roll: u64) -> bool {
    share.hit(scale(roll, u64::from(Percent::ALL.parts_per_million())) as u32)
}

#[cfg(test)]
mod tests;
