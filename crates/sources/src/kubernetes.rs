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

use std::{collections::BTreeMap, future::Future, time::Duration};

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
pub async fn follow<F: Future<Output = ()>>(
    client: Client,
    stop: CancellationToken,
    mut tell: impl FnMut(News) -> F,
) {
    let (said_in, mut said) = mpsc::channel(QUEUE);
    let mut held = Held::default();
    let mut watches = Watches { client, tasks: JoinSet::new(), running: BTreeMap::new(), said_in };
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
            Some((kind, event)) = said.recv() => {
                held.take(kind, event);
                while let Ok((kind, event)) = said.try_recv() {
                    held.take(kind, event);
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

/// The watches that run, one a kind.
struct Watches {
    client: Client,
    tasks: JoinSet<()>,
    running: BTreeMap<Kind, String>,
    said_in: mpsc::Sender<(Kind, Event)>,
}

impl Watches {
    fn start(&mut self, kinds: Vec<Served>, held: &mut Held) {
        for Served { kind, resource } in kinds {
            if self.running.contains_key(&kind) {
                continue;
            }
            tracing::info!(kind = %resource.kind, version = %resource.api_version, "watched");
            self.running.insert(kind, resource.api_version.clone());
            held.expect(kind);
            self.tasks.spawn(watch(self.client.clone(), kind, resource, self.said_in.clone()));
        }
    }
}
