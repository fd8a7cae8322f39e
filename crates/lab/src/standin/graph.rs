//! Answers a request that no special path takes: makes the stand-in's calls and says what became of them.
//!
//! Invariants: calls under way are bounded for each stand-in; what exceeds the bound is a failed call.
//! Must not know: which protocol the request came by.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderMap;
use rand::Rng;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StandInSpec;
use super::behaviour::{Behaviour, PathBehaviour};
use super::calls::{Call, CallReport};
use super::client::Client;
use super::counters::Counting;
use super::notes::Notes;
use super::trace_headers::Carried;

/// Most calls under way of one stand-in.
const MAX_CALLS: usize = 256;

/// What all connections of a stand-in share.
pub(super) struct App {
    pub(super) spec: StandInSpec,
    pub(super) client: Client,
    pub(super) counting: Counting,
    pub(super) notes: Notes,
    /// Cancelled when the stand-in has been told to stop.
    pub(super) draining: CancellationToken,
    /// Cancelled when everything must end.
    pub(super) killed: CancellationToken,
    pub(super) tasks: TaskTracker,
    calls: Semaphore,
}

/// How the behaviour answers one request.
pub(super) struct Planned<'a> {
    behaviour: &'a Behaviour,
    path: Option<&'a PathBehaviour>,
}

impl App {
    pub(super) fn new(spec: StandInSpec, client: Client, notes: Notes) -> Arc<Self> {
        Arc::new(Self {
            spec,
            client,
            counting: Counting::default(),
            notes,
            draining: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            calls: Semaphore::new(MAX_CALLS),
        })
    }

    pub(super) fn plan(&self, path: &str) -> Planned<'_> {
        Planned { behaviour: &self.spec.behaviour, path: self.spec.behaviour.for_path(path) }
    }

    /// Makes the calls of a request.
    pub(super) async fn make_calls(&self, plan: &Planned<'_>, headers: &HeaderMap) -> Vec<CallReport> {
        let carried = Carried::from_request(headers, plan.behaviour.hop_limit);
        if !carried.may_go_on() {
            return Vec::new();
        }
        let calls = plan.calls(&self.spec);
        if !plan.behaviour.sequential_calls {
            return join_all(calls.iter().map(|call| self.make_call(call, &carried))).await;
        }
        let mut reports = Vec::with_capacity(calls.len());
        for call in &calls {
            reports.push(self.make_call(call, &carried).await);
        }
        reports
    }

    async fn make_call(&self, call: &Call<'_>, carried: &Carried) -> CallReport {
        let report = match self.calls.try_acquire() {
            Ok(_permit) => call.make(&self.client, carried).await,
            Err(_) => CallReport {
                name: call.name.to_owned(),
                target: call.target.to_owned(),
                error: Some(format!("more than {MAX_CALLS} calls under way")),
                ..CallReport::default()
            },
        };
        self.counting.called(&report);
        report
    }
}

impl<'a> Planned<'a> {
    /// How long to wait, and the status to fail with when the dice say so.
    pub(super) fn roll(&self) -> (Duration, Option<u16>) {
        let mut rng = rand::rng();
        let latency = self.path.and_then(|path| path.latency).unwrap_or(self.behaviour.latency);
        let rate = self.path.and_then(|path| path.error_rate).unwrap_or(self.behaviour.error_rate);
        let status = self.path.and_then(|path| path.error_status).unwrap_or(self.behaviour.error_status);
        (latency.sample(&mut rng), (rate > 0.0 && rng.random::<f64>() < rate).then_some(status))
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.path.and_then(|path| path.text.as_deref()).or(self.behaviour.text.as_deref())
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.path.and_then(|path| path.body_bytes).unwrap_or(self.behaviour.body_bytes)
    }

    pub(super) fn fails_with(&self, calls: &[CallReport]) -> bool {
        self.behaviour.fail_when_calls_fail && calls.iter().any(|call| call.error.is_some())
    }

    fn calls(&self, spec: &'a StandInSpec) -> Vec<Call<'a>> {
        let default_deadline = self.behaviour.call_deadline;
        if let Some(calls) = self.path.and_then(|path| path.calls.as_deref()) {
            let call = |call: &'a super::behaviour::CallBehaviour| Call {
                name: &call.target,
                target: &call.target,
                protocol: call.protocol,
                path: &call.path,
                deadline: call.deadline.unwrap_or(default_deadline),
                tries: call.tries,
            };
            return calls.iter().map(call).collect();
        }
        if !self.behaviour.environment_calls {
            return Vec::new();
        }
        let call = |call: &'a super::CallSpec| Call {
            name: &call.name,
            target: &call.target,
            protocol: call.protocol,
            path: &call.path,
            deadline: default_deadline,
            tries: 1,
        };
        spec.calls.iter().map(call).collect()
    }
}
