//! A `ClientState` through its streams.
//!
//! `subscriber` makes four ends: the `Runner` that `run` drives, the `Subscriber` that asks for scopes, the receiver of
//! batches, and the receiver of the state of the connection. The consumer judges every batch; a batch that it drops
//! counts as refused.
//!
//! Invariant: one task owns the state; it never waits for one thing only.

mod link;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, timeout_at};

use crate::client::{ClientState, Landed, ScopeAnswer, SubscribeRefused, Verdict};
use crate::resource::ResourceKey;

use link::{Event, Link};

/// Times of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How long dialling, handshakes and the server's first sign may take.
    pub connect_timeout: Duration,
    /// How long a generation that has begun may pause.
    pub staging_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), staging_timeout: Duration::from_secs(30) }
    }
}

/// Makes connections to a server, TLS and all.
pub trait Dial: Send + Sync + 'static {
    /// A connection.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Makes one.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl<F, Fut, IO> Dial for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<IO>> + Send,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Connection = IO;

    fn dial(&self) -> impl Future<Output = io::Result<IO>> + Send {
        self()
    }
}

/// The state of the connection, for logs and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Dialling.
    Connecting,
    /// The stream is open.
    Open,
    /// Waiting before the next attempt.
    Waiting {
        /// Why the last one ended.
        cause: Arc<str>,
        /// For how long.
        delay: Duration,
    },
}

/// Why a scope is not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// There was no answer in time; the subscription stays.
    #[error("the control plane did not answer in time")]
    Deadline,
    /// The client takes no more scopes.
    #[error(transparent)]
    Refused(#[from] SubscribeRefused),
    /// The client has ended.
    #[error("the discovery client has ended")]
    Ended,
}

enum Command {
    Subscribe(Arc<str>, oneshot::Sender<Result<ScopeAnswer, SubscribeRefused>>),
    Unsubscribe(Arc<str>),
}

/// Asks for scopes. Clones ask the same client.
#[derive(Clone)]
pub struct Subscriber {
    commands: mpsc::Sender<Command>,
}

impl Subscriber {
    /// Wants a scope and waits until it has landed or is known not to exist.
    pub async fn subscribe(&self, scope: Arc<str>, deadline: Instant) -> Result<ScopeAnswer, SubscribeError> {
        let (answer, answered) = oneshot::channel();
        let asked = timeout_at(deadline, async {
            self.commands.send(Command::Subscribe(scope, answer)).await.map_err(|_| SubscribeError::Ended)?;
            Ok(answered.await.map_err(|_| SubscribeError::Ended)??)
        });
        asked.await.unwrap_or(Err(SubscribeError::Deadline))
    }

    /// No longer wants a scope.
    pub async fn unsubscribe(&self, scope: Arc<str>) -> Result<(), SubscribeError> {
        self.commands.send(Command::Unsubscribe(scope)).await.map_err(|_| SubscribeError::Ended)
    }
}

/// A batch and the way to say what was done with it.
#[derive(Debug)]
pub struct Landing {
    /// The batch.
    pub landed: Landed,
    verdict: oneshot::Sender<Verdict>,
}

impl Landing {
    /// The batch and, apart, the way to judge it.
    pub fn split(self) -> (Landed, Judge) {
        (self.landed, Judge(self.verdict))
    }
}

/// Says what was done with a batch.
#[derive(Debug)]
pub struct Judge(oneshot::Sender<Verdict>);

impl Judge {
    /// All of it was taken.
    pub fn accept(self) {
        self.accept_except(Vec::new());
    }

    /// All was taken except these, for these reasons.
    pub fn accept_except(self, rejected: Vec<(ResourceKey, String)>) {
        self.say(Verdict::Accepted(rejected));
    }

    /// Nothing was taken.
    pub fn refuse(self, error: String) {
        self.say(Verdict::Refused(error));
    }

    fn say(self, verdict: Verdict) {
        // A client that has ended needs no verdict.
        let _ = self.0.send(verdict);
    }
}

/// What `run` drives.
pub struct Runner {
    state: ClientState,
    config: ClientConfig,
    commands: mpsc::Receiver<Command>,
    landings: mpsc::Sender<Landing>,
    connection: watch::Sender<Connection>,
    waiting: BTreeMap<Arc<str>, Vec<oneshot::Sender<Result<ScopeAnswer, SubscribeRefused>>>>,
    verdict: Option<oneshot::Receiver<Verdict>>,
}

/// The ends of a client.
pub struct Ends {
    /// Asks for scopes.
    pub subscriber: Subscriber,
    /// Batches, one at a time: the next comes after the verdict on the one before.
    pub landings: mpsc::Receiver<Landing>,
    /// The state of the connection.
    pub connection: watch::Receiver<Connection>,
}

/// A client around `state`.
pub fn subscriber(state: ClientState, config: ClientConfig) -> (Runner, Ends) {
    let (command_in, commands) = mpsc::channel(256);
    let (landing_in, landings) = mpsc::channel(1);
    let (connection_in, connection) = watch::channel(Connection::Connecting);
    let runner = Runner {
        state,
        config,
        commands,
        landings: landing_in,
        connection: connection_in,
        waiting: BTreeMap::new(),
        verdict: None,
    };
    (runner, Ends { subscriber: Subscriber { commands: command_in }, landings, connection })
}

/// Keeps a client connected until every `Subscriber` is gone or nobody takes batches; drop it to stop at once.
pub async fn run(mut runner: Runner, dial: impl Dial) {
    let dial = Arc::new(dial);
    let landings = runner.landings.clone();
    let mut link = runner.connect(&dial);
    let mut outgoing = None;
    loop {
        if outgoing.is_none() && link.is_open() {
            outgoing = runner.state.next_message();
        }
        link.expect_more(runner.state.is_staging(), runner.config.staging_timeout);
        tokio::select! {
            command = runner.commands.recv() => match command {
                Some(command) => runner.command(command),
                None => return,
            },
            verdict = judged(&mut runner.verdict), if runner.verdict.is_some() => runner.judged(verdict),
            permit = landings.reserve(), if runner.state.has_landing() => {
                let Ok(permit) = permit else { return };
                if let Some(landed) = runner.state.next_landing() {
                    let (verdict, receiver) = oneshot::channel();
                    runner.verdict = Some(receiver);
                    permit.send(Landing { landed, verdict });
                }
            }
            () = landings.closed() => return,
            event = link.event(&mut outgoing) => {
                let lost = match event {
                    Event::Sent => None,
                    Event::Opened(open) => {
                        link = open;
                        runner.connection.send_replace(Connection::Open);
                        None
                    }
                    Event::Retry => {
                        link = runner.connect(&dial);
                        None
                    }
                    Event::Delta(delta) => runner.state.receive(delta).err().map(|it| it.to_string()),
                    Event::Lost(cause) => Some(cause),
                };
                if let Some(cause) = lost {
                    outgoing = None;
                    link = runner.lost(cause);
                }
            }
        }
    }
}

async fn judged(verdict: &mut Option<oneshot::Receiver<Verdict>>) -> Verdict {
    let dropped = || Verdict::Refused("the consumer dropped the batch".to_owned());
    match verdict {
        Some(receiver) => receiver.await.unwrap_or_else(|_| dropped()),
        None => std::future::pending().await,
    }
}

impl Runner {
    fn connect<D: Dial>(&mut self, dial: &Arc<D>) -> Link {
        self.connection.send_replace(Connection::Connecting);
        self.state.open_stream();
        let hello = self.state.next_message();
        Link::connect(dial.clone(), hello, self.state.limits().message_bytes, self.config.connect_timeout)
    }

    fn lost(&mut self, cause: String) -> Link {
        let delay = self.state.disconnected(rand::random());
        self.connection.send_replace(Connection::Waiting { cause: cause.into(), delay });
        Link::wait(delay)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Unsubscribe(scope) => {
                self.waiting.remove(&scope);
                self.state.unsubscribe(&scope);
            }
            Command::Subscribe(scope, answer) => match self.state.subscribe(scope.clone()) {
                Ok(None) => {
                    let waiting = self.waiting.entry(scope).or_default();
                    // Those whose deadline has passed make room.
                    waiting.retain(|waiting| !waiting.is_closed());
                    waiting.push(answer);
                }
                // The asker may have gone away meanwhile.
                Ok(Some(known)) => drop(answer.send(Ok(known))),
                Err(refused) => drop(answer.send(Err(refused))),
            },
        }
    }

    fn judged(&mut self, verdict: Verdict) {
        self.verdict = None;
        for (scope, answer) in self.state.landed(verdict) {
            for waiting in self.waiting.remove(&scope).unwrap_or_default() {
                // The asker may have gone away meanwhile.
                let _ = waiting.send(Ok(answer));
            }
        }
    }
}
