//! The schedule and the requests.
//!
//! Invariants: every arrival ends in the record exactly once; the schedule never waits for an answer.
//! Must not know: how numbers are kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::plan::{Arrivals, LoadProtocol, Plan, Target};
use super::record::{Ended, Outcome, PhaseStats, Recorder};
use super::ticker::Ticker;
use crate::standin::calls::chain;
use crate::standin::client::{Client, Endpoint, SendError};
use crate::standin::dial::DialError;

/// How much of a body a label may look at.
const LABELLED_BYTES: usize = 16 << 10;
/// Most idle connections to a target.
const MAX_IDLE: usize = 256;

/// Why a load could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing to send, or never.
    #[error("a load needs a positive rate and a target with a weight")]
    Empty,
    /// The system gave no timer.
    #[error("no timer for the schedule")]
    Timer(#[from] io::Error),
}

/// An open-loop load.
#[derive(Clone, Copy, Debug)]
pub struct Load;

/// A load that runs; dropped without `stop`, it sends nothing more.
pub struct Handle {
    shared: Arc<Shared>,
    paused: watch::Sender<bool>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    plan: Plan,
    client: Client,
    recorder: Mutex<Recorder>,
}

impl Load {
    /// Starts on the current runtime.
    ///
    /// # Errors
    /// When there is nothing to send, or no timer.
    pub fn start(plan: Plan) -> Result<Handle, LoadError> {
        let weight: u64 = plan.targets.iter().map(|target| u64::from(target.weight)).sum();
        if weight == 0 || !plan.rate.is_finite() || plan.rate <= 0.0 {
            return Err(LoadError::Empty);
        }
        let ticker = Ticker::new()?;
        let client = Client::new(plan.dialer.clone(), plan.max_in_flight.min(MAX_IDLE));
        let recorder = Mutex::new(Recorder::new(plan.keep_failures));
        let shared = Arc::new(Shared { plan, client, recorder });
        let (paused, is_paused) = watch::channel(false);
        let handle = Handle { shared, paused, stopping: CancellationToken::new(), tasks: TaskTracker::new() };
        let (stopping, tasks) = (handle.stopping.clone(), handle.tasks.clone());
        let schedule = schedule(Arc::clone(&handle.shared), ticker, is_paused, tasks, weight);
        handle.tasks.spawn(async move { stopping.run_until_cancelled_owned(schedule).await });
        Ok(handle)
    }
}

impl Handle {
    /// The numbers since the start.
    #[must_use]
    pub fn snapshot(&self) -> PhaseStats {
        self.shared.recorder.lock().total()
    }

    /// The numbers since the last cut; a request under way counts in the phase in which it ends.
    #[must_use]
    pub fn cut_phase(&self) -> PhaseStats {
        self.shared.recorder.lock().cut()
    }

    /// Sends nothing more until `resume`; what is under way goes on.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Sends again.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Sends nothing more, waits for what is under way (each request has its timeout), and gives the numbers since the start.
    pub async fn stop(self) -> PhaseStats {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.snapshot()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn schedule(
    shared: Arc<Shared>,
    ticker: Ticker,
    mut paused: watch::Receiver<bool>,
    tasks: TaskTracker,
    weight: u64,
) {
    let mut rng = SmallRng::seed_from_u64(shared.plan.seed);
    let in_flight = Arc::new(Semaphore::new(shared.plan.max_in_flight));
    let (mut due, mut number) = (Instant::now(), 0);
    loop {
        if *paused.borrow_and_update() {
            if paused.wait_for(|paused| !paused).await.is_err() {
                return;
            }
            due = Instant::now();
        }
        due += distance(&shared.plan, &mut rng);
        tokio::select! {
            waited = ticker.until(due) => if let Err(error) = waited {
                tracing::warn!(%error, "the load's timer failed");
                return;
            },
            // A pause takes effect between two arrivals.
            changed = paused.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let index = choose(&shared.plan.targets, rng.random_range(0..weight));
        match Arc::clone(&in_flight).try_acquire_owned() {
            Ok(permit) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    shared.send(index, number, due).await;
                    drop(permit);
                });
            }
            Err(_) => shared.overrun(index, number),
        }
        number += 1;
        if number % 64 == 0 {
            // A schedule that is behind never waits: let the requests have their turn.
            tokio::task::yield_now().await;
        }
    }
}

fn distance(plan: &Plan, rng: &mut SmallRng) -> Duration {
    let mean = 1.0 / plan.rate;
    let seconds = match plan.arrivals {
        Arrivals::Constant => mean,
        Arrivals::Poisson => -(1.0 - rng.random::<f64>()).ln() * mean,
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(3600))
}

fn choose(targets: &[Target], mut rolled: u64) -> usize {
    for (index, target) in targets.iter().enumerate() {
        match rolled.checked_sub(target.weight.into()) {
            Some(rest) => rolled = rest,
            None => return index,
        }
    }
    0
}

impl Shared {
    async fn send(&self, index: usize, number: u64, due: Instant) {
        let target = &self.plan.targets[index];
        let answer = timeout_at(due + self.plan.timeout, Box::pin(self.exchange(target, number))).await;
        let (outcome, label) = answer.unwrap_or_else(|_| {
            (Outcome::None("timeout", format!("no answer within {:?}", self.plan.timeout)), None)
        });
        let failed = match &outcome {
            Outcome::Http(status) if target.expected.is_empty() => *status >= 400,
            Outcome::Grpc(status) if target.expected.is_empty() => *status != 0,
            Outcome::Http(status) | Outcome::Grpc(status) => !target.expected.contains(status),
            Outcome::None(..) => true,
        };
        let ended = Ended { number, target: &target.name, outcome, failed, latency: due.elapsed(), label };
        self.recorder.lock().record(&ended);
    }

    fn overrun(&self, index: usize, number: u64) {
        let outcome = Outcome::None("overrun", format!("more than {} under way", self.plan.max_in_flight));
        let target = &self.plan.targets[index].name;
        let ended = Ended { number, target, outcome, failed: true, latency: Duration::ZERO, label: None };
        self.recorder.lock().record(&ended);
    }

    async fn exchange(&self, target: &Target, number: u64) -> (Outcome, Option<String>) {
        let http2 = target.protocol != LoadProtocol::Http1;
        let to = Endpoint { host: target.host.clone(), port: target.port, http2 };
        let mut sent = self.client.send(&to, (target.request)(number)).await;
        if matches!(sent, Err(SendError::NotBegun(_))) {
            sent = self.client.send(&to, (target.request)(number)).await;
        }
        let response = match sent {
            Ok(response) => response,
            Err(error) => return (Outcome::None(kind(&error), chain(&error)), None),
        };
        let (head, mut body) = response.into_parts();
        let mut grpc_status = grpc_status(&head.headers);
        let mut start = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) if target.label.is_some() => {
                    let room = LABELLED_BYTES.saturating_sub(start.len()).min(data.len());
                    start.extend_from_slice(&data[..room]);
                }
                Ok(Ok(_)) => {}
                Ok(Err(frame)) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    grpc_status = self::grpc_status(&trailers).or(grpc_status);
                }
                Err(error) => return (Outcome::None("broken", chain(&error)), None),
            }
        }
        let label = target.label.as_ref().and_then(|label| label(&head, &start));
        let outcome = match (target.protocol, grpc_status) {
            (LoadProtocol::Grpc, Some(status)) => Outcome::Grpc(status),
            (LoadProtocol::Grpc, None) if head.status.is_success() => {
                Outcome::None("broken", "no grpc-status".to_owned())
            }
            (LoadProtocol::Grpc | LoadProtocol::Http1 | LoadProtocol::Http2, _) => {
                Outcome::Http(head.status.as_u16())
            }
        };
        (outcome, label)
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn kind(error: &SendError) -> &'static str {
    match error {
        SendError::Dial(DialError::NoSuchName { .. } | DialError::LookUp { .. }) => "name",
        SendError::Dial(DialError::Connect { .. }) => "connect",
        SendError::Broken(_) | SendError::NotBegun(_) => "broken",
    }
}
