//! The connection of a client at the moment: waiting, connecting or open.
//!
//! Invariant: `event` may be dropped at any await and nothing is lost.

use std::error::Error;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::proto::discovery::{self as pb, discovery_client::DiscoveryClient};

use super::super::channel::channel;
use super::Dial;

/// What happened on the link.
pub(super) enum Event {
    /// The outgoing message is on its way.
    Sent,
    /// The stream is open: the link is to be replaced by this.
    Opened(Link),
    /// The wait is over.
    Retry,
    /// A message came.
    Delta(pb::Delta),
    /// The connection failed or ended.
    Lost(String),
}

type Connecting = Pin<Box<dyn Future<Output = Result<Link, String>> + Send>>;

/// The connection at the moment.
pub(super) enum Link {
    Waiting(Instant),
    Connecting(Connecting),
    Open { requests: mpsc::Sender<pb::Request>, deltas: Box<Streaming<pb::Delta>>, due: Option<Instant> },
}

impl Link {
    pub(super) fn wait(delay: Duration) -> Self {
        Self::Waiting(Instant::now() + delay)
    }

    pub(super) fn connect<D: Dial>(
        dial: Arc<D>,
        hello: Option<pb::Request>,
        message_bytes: usize,
        within: Duration,
    ) -> Self {
        Self::Connecting(Box::pin(async move {
            let opened = timeout(within, open(dial, hello, message_bytes)).await;
            opened.unwrap_or_else(|_| Err("the control plane did not answer in time".to_owned()))
        }))
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Whether more is due; the deadline counts from when this was last said after a message.
    pub(super) fn expect_more(&mut self, expected: bool, within: Duration) {
        if let Self::Open { due, .. } = self {
            *due = expected.then(|| due.unwrap_or_else(|| Instant::now() + within));
        }
    }

    pub(super) async fn event(&mut self, outgoing: &mut Option<pb::Request>) -> Event {
        match self {
            Self::Waiting(until) => {
                sleep_until(*until).await;
                Event::Retry
            }
            Self::Connecting(connecting) => match connecting.await {
                Ok(open) => Event::Opened(open),
                Err(cause) => Event::Lost(cause),
            },
            Self::Open { requests, deltas, due } => tokio::select! {
                delta = deltas.message() => {
                    *due = None;
                    match delta {
                        Ok(Some(delta)) => Event::Delta(delta),
                        Ok(None) => Event::Lost("the control plane ended the stream".to_owned()),
                        Err(status) => Event::Lost(chain(&status)),
                    }
                }
                permit = requests.reserve(), if outgoing.is_some() => match (permit, outgoing.take()) {
                    (Ok(permit), Some(request)) => {
                        permit.send(request);
                        Event::Sent
                    }
                    _ => Event::Lost("the connection is closed".to_owned()),
                },
                () = overdue(*due) => Event::Lost("a generation was not completed in time".to_owned()),
            },
        }
    }
}

async fn overdue(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

async fn open<D: Dial>(
    dial: Arc<D>,
    hello: Option<pb::Request>,
    message_bytes: usize,
) -> Result<Link, String> {
    let connection = dial.dial().await.map_err(|error| chain(&error))?;
    let channel = channel(connection).await.map_err(|error| chain(&error))?;
    let (requests, receiver) = mpsc::channel(2);
    if let Some(hello) = hello {
        requests.send(hello).await.map_err(|error| chain(&error))?;
    }
    let mut client = DiscoveryClient::new(channel)
        .max_decoding_message_size(message_bytes)
        .max_encoding_message_size(message_bytes);
    let response = client.stream(ReceiverStream::new(receiver)).await.map_err(|status| chain(&status))?;
    Ok(Link::Open { requests, deltas: Box::new(response.into_inner()), due: None })
}

/// The error and what it came from, for people.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
