//! A Kubernetes API server as a source of objects.
//!
//! ```text
//! discover: which of our kinds are served, in which version ──► one watch a kind ──events──► held ──► Reading
//! ```
//!
//! Invariants: nothing is said before every served kind has been listed once; a list or watch that fails changes nothing (only
//! a list that was completed, or a deletion that was watched, removes an object); an object whose new form cannot be honoured
//! as a whole keeps its last good form. Must not know: what any object means.

mod discover;
mod held;
mod watch;

use std::{collections::BTreeSet, future::Future, time::Duration};

use kube::Client;
use leno_apis::Kind;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    discover::{Served, served},
    held::Held,
    watch::{Event, watch},
};
use crate::Reading;

/// Events that may wait for the task that holds the objects.
const QUEUE: usize = 1024;

/// Between two looks for kinds that were not served (CRDs may be installed later).
const DISCOVERY: Duration = Duration::from_secs(15);

/// How long the first look may fail before that is said again.
const RETRY: Duration = Duration::from_secs(1);

/// What the source says.
#[derive(Debug)]
pub enum News {
    /// The objects as they are.
    Reading(Reading),
    /// Why something cannot be read at present; the last reading stays.
    Trouble(String),
    /// What was in trouble can be read again.
    Well,
}

/// Follows an API server until `stop`: `tell` is given each state of its objects, and waits are its back pressure.
///
/// Everything that is ready when `tell` returns goes into the next reading.
///
/// `secrets` are the namespaces whose TLS Secrets may be read; `*` is all.
pub async fn follow<F: Future<Output = ()>>(
    client: Client,
    secrets: Vec<String>,
    stop: CancellationToken,
    mut tell: impl FnMut(News) -> F,
) {
    let (said_in, mut said) = mpsc::channel(QUEUE);
    let mut held = Held::default();
    let mut watches = Watches { client, secrets, tasks: JoinSet::new(), running: BTreeSet::new(), said_in };
    let mut look = interval(RETRY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complete = false;
    let mut discovered: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick(), if discovered.is_none_or(|when| when.elapsed() >= DISCOVERY) => {
                match served(&watches.client).await {
                    Ok(kinds) => {
                        watches.start(kinds, &mut held);
                        discovered = Some(Instant::now());
                    }
                    Err(error) => held.trouble(None, Some(format!("the API server cannot be asked for its kinds: {error}"))),
                }
            }
            Some((watch, event)) = said.recv() => {
                held.take(&watch, event);
                while let Ok((watch, event)) = said.try_recv() {
                    held.take(&watch, event);
                }
            }
        }
        if let Some(trouble) = held.news_of_trouble() {
            tell(trouble.map_or(News::Well, News::Trouble)).await;
        }
        if discovered.is_some() && held.is_complete() && (held.changed() || !complete) {
            complete = true;
            tell(News::Reading(held.reading())).await;
        }
    }
    watches.tasks.shutdown().await;
}

/// What one watch is of: a kind, for Secrets perhaps of one namespace only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Watched {
    kind: Kind,
    namespace: Option<String>,
}

/// The watches that run.
struct Watches {
    client: Client,
    secrets: Vec<String>,
    tasks: JoinSet<()>,
    running: BTreeSet<Kind>,
    said_in: mpsc::Sender<(Watched, Event)>,
}

impl Watches {
    fn start(&mut self, kinds: Vec<Served>, held: &mut Held) {
        held.trouble(None, None);
        for Served { kind, resource } in kinds {
            if !self.running.insert(kind) {
                continue;
            }
            tracing::info!(kind = %resource.kind, version = %resource.api_version, "watched");
            for namespace in self.namespaces(kind) {
                let watched = Watched { kind, namespace };
                held.expect(watched.clone());
                self.tasks.spawn(watch(self.client.clone(), watched, resource.clone(), self.said_in.clone()));
            }
        }
    }

    /// `None` is all of them.
    fn namespaces(&self, kind: Kind) -> Vec<Option<String>> {
        if kind != Kind::Secret || self.secrets.iter().any(|namespace| namespace == "*") {
            vec![None]
        } else {
            self.secrets.iter().cloned().map(Some).collect()
        }
    }
}
