//! The connections of a listener: each a task of its own, bounded in number, ended by `stop`.
//!
//! Must not know: what is said on them.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Between two tries when connections cannot be accepted (no file descriptors).
const PAUSE: Duration = Duration::from_millis(50);

/// Converses on each connection until it ends or `stop`; returns when all have ended. `what` names the listener in logs. More than
/// `most` at a time wait in the kernel's queue.
pub(crate) async fn each<F>(
    what: &'static str,
    most: usize,
    listener: TcpListener,
    stop: CancellationToken,
    converse: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, what, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (conversation, stop) = (converse(stream), stop.clone());
        connections.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = stop.cancelled() => {}
                () = conversation => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}
