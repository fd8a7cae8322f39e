//! One server stream: a task around a `ServerSession`.
//!
//! Invariant: it ends when the client is gone, breaks the protocol, leaves an answer out for too long, has been
//! connected for its time, or when the server stops; a client comes back by version, so ending is always safe.

use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::proto::discovery as pb;
use crate::server::ServerSession;

use super::publisher::Publication;
use super::sessions::Entry;

/// How long a client that reads nothing is given to hear why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(1);

pub(super) struct SessionTask {
    pub(super) session: ServerSession,
    pub(super) inbound: Streaming<pb::Request>,
    pub(super) outbound: mpsc::Sender<Result<pb::Delta, Status>>,
    pub(super) publications: watch::Receiver<Option<Publication>>,
    pub(super) entry: Entry,
    pub(super) stop: CancellationToken,
    pub(super) answer_timeout: Duration,
    pub(super) ends_at: Instant,
}

impl SessionTask {
    pub(super) async fn run(mut self) {
        if let Err(status) = self.drive().await {
            // A client that is gone or does not read cannot be told; the stream ends either way.
            let _ = timeout(LAST_WORD, self.outbound.send(Err(status))).await;
        }
    }

    async fn drive(&mut self) -> Result<(), Status> {
        let mut outgoing: Option<pb::Delta> = None;
        let mut awaited = None;
        let mut answer_by = Instant::now() + self.answer_timeout;
        let mut seen = None;
        self.publications.mark_changed();
        loop {
            if outgoing.is_none() {
                outgoing = self.session.next_message();
            }
            if let Some(status) = self.session.changed_status() {
                self.entry.update(status);
            }
            if self.session.awaits() != awaited {
                awaited = self.session.awaits();
                answer_by = Instant::now() + self.answer_timeout;
            }
            tokio::select! {
                request = self.inbound.message() => match request? {
                    Some(request) => {
                        let taken = self.session.receive(request);
                        taken.map_err(|violation| Status::invalid_argument(violation.to_string()))?;
                    }
                    None => return Ok(()),
                },
                permit = self.outbound.reserve(), if outgoing.is_some() => match (permit, outgoing.take()) {
                    (Ok(permit), Some(delta)) => {
                        self.entry.sends(&delta);
                        permit.send(Ok(delta));
                    }
                    _ => return Ok(()),
                },
                // The service keeps the publisher: this cannot be closed while the session lives.
                changed = self.publications.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    if let Some(publication) = &*self.publications.borrow_and_update() {
                        seen = Some(publication.bring(&mut self.session, seen));
                    }
                }
                () = sleep_until(answer_by), if awaited.is_some() => {
                    return Err(Status::deadline_exceeded("the client owes an answer for too long"));
                }
                () = sleep_until(self.ends_at) => return Ok(()),
                () = self.outbound.closed() => return Ok(()),
                () = self.stop.cancelled() => return Err(Status::unavailable("the server stops")),
            }
        }
    }
}
