//! Whether capture works where this proxy runs: at its start, and again and again.
//!
//! The proxy dials an address that nobody has and that the rules redirect even for its own user; a redirected connection comes
//! in at its outbound listener, which answers with a word that only this process knows. The rules are one table that is
//! written whole, so one way that works stands for all of them. Without capture a pod's traffic would leave as plaintext
//! and come in unjudged (PAINS P25), so a proxy whose capture does not work is not ready.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use leno_capture::PROBES;
use leno_telemetry::metrics::names;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bootstrap::{Capture, OUTBOUND_PORT, Role},
    shared::Shared,
};

/// Between two looks while it works.
const EVERY: Duration = Duration::from_secs(5);
/// Between two looks while it does not.
const AGAIN: Duration = Duration::from_millis(500);
/// A look takes no longer.
const LIMIT: Duration = Duration::from_secs(2);
/// Looks in a row that must fail before what worked counts as broken: a busy machine can miss one.
const FAILURES: u32 = 3;

/// What answers a probe.
pub(crate) type Answer = [u8; 16];

/// What is known of capture.
pub(crate) struct Verified {
    /// What this process answers.
    pub(crate) answer: Answer,
    state: Mutex<State>,
}

enum State {
    /// There is nothing to capture.
    NotNeeded,
    Works,
    Broken(Arc<str>),
}

impl Verified {
    /// Nothing is known yet.
    pub(crate) fn new(role: Role, capture: Capture) -> Self {
        let state = match (role, capture) {
            (Role::Sidecar, Capture::Captured) => State::Broken("it has not been verified yet".into()),
            (Role::Gateway, _) | (_, Capture::ProxyProtocol) => State::NotNeeded,
        };
        Self { answer: rand::random(), state: Mutex::new(state) }
    }

    /// Why traffic is not captured.
    pub(crate) fn problem(&self) -> Option<Arc<str>> {
        match &*self.state.lock() {
            State::NotNeeded | State::Works => None,
            State::Broken(why) => Some(why.clone()),
        }
    }

    fn is_needed(&self) -> bool {
        !matches!(*self.state.lock(), State::NotNeeded)
    }
}

/// Answers a connection to one of [`PROBES`].
pub(crate) async fn answer(shared: &Shared, stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&shared.capture.answer).await?;
    stream.shutdown().await
}

/// Looks until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    if !shared.capture.is_needed() {
        return;
    }
    let mut failures = FAILURES;
    loop {
        let found = tokio::select! {
            () = stop.cancelled() => return,
            found = look(&shared) => found,
        };
        failures = if found.is_ok() { 0 } else { failures.saturating_add(1) };
        let pause = if found.is_ok() { EVERY } else { AGAIN };
        note(&shared, found, failures);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn note(shared: &Shared, found: Result<(), Uncaptured>, failures: u32) {
    let registry = shared.telemetry.registry();
    let works = registry.gauge(&names::CAPTURE_WORKS, []);
    let mut state = shared.capture.state.lock();
    match found {
        Ok(()) => {
            if matches!(*state, State::Broken(_)) {
                tracing::info!("capture works");
            }
            *state = State::Works;
            works.set(1.0);
        }
        Err(why) => {
            registry.counter(&names::CAPTURE_FAILURES, [why.cause()]).add(1);
            if failures >= FAILURES {
                if matches!(*state, State::Works) {
                    tracing::error!(%why, "capture does not work any more; the workload is not ready");
                }
                *state = State::Broken(why.to_string().into());
                works.set(0.0);
            }
        }
    }
}

/// How a probe ended that did not come back.
#[derive(Debug, thiserror::Error)]
enum Uncaptured {
    #[error("{probe} is not redirected to port {OUTBOUND_PORT}: nobody answered in {LIMIT:?}")]
    Silence { probe: SocketAddr },
    #[error("{probe} is not redirected to port {OUTBOUND_PORT}: {error}")]
    Failed { probe: SocketAddr, error: io::Error },
    #[error("{probe} is redirected, but not to this process")]
    Another { probe: SocketAddr },
}

impl Uncaptured {
    fn cause(&self) -> &'static str {
        match self {
            Self::Silence { .. } => "silence",
            Self::Failed { .. } => "failed",
            Self::Another { .. } => "another",
        }
    }
}

async fn look(shared: &Shared) -> Result<(), Uncaptured> {
    for probe in PROBES {
        let ended = match tokio::time::timeout(LIMIT, ask(probe)).await {
            Err(_) => Err(Uncaptured::Silence { probe }),
            Ok(Ok(answer)) if answer == shared.capture.answer => Ok(()),
            Ok(Ok(_)) => Err(Uncaptured::Another { probe }),
            Ok(Err(error)) => Err(Uncaptured::Failed { probe, error }),
        };
        match ended {
            // A family that this namespace does not have has nothing to capture.
            Err(Uncaptured::Failed { error, .. })
                if is_absent(&error) && probe.is_ipv4() != shared.bootstrap.address.is_ipv4() => {}
            other => other?,
        }
    }
    Ok(())
}

async fn ask(probe: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(probe).await?;
    let mut answer = Answer::default();
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    )
}
