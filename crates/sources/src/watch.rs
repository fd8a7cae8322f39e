//! Tells when files may have changed: the system's events as hints, and a poll because events can be lost.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// After an event, the time in which more of the same edit are expected.
const SETTLE: Duration = Duration::from_millis(50);

/// The longest that a stream of events may put a reading off.
const LONGEST_SETTLE: Duration = Duration::from_millis(300);

/// How often is looked without an event.
const POLL: Duration = Duration::from_secs(10);

/// Calls `look` whenever something below `paths` may have changed, until `stop`. `look` compares for itself.
pub async fn watch<F: Future<Output = ()>>(
    paths: &[PathBuf],
    stop: CancellationToken,
    mut look: impl FnMut() -> F,
) {
    let (hint, mut hints) = mpsc::channel(1);
    let given: Vec<(PathBuf, bool)> = paths.iter().map(|path| (path.clone(), path.is_dir())).collect();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access() && concerns(&event.paths, &given)) {
            // One waiting hint says as much as many.
            let _ = hint.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "files are polled only: events of the system are not available");
            None
        }
    };
    for path in paths {
        // Editors replace files, so a file is watched through its folder.
        let is_dir = path.is_dir();
        let mode = if is_dir { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let folder = if is_dir { Some(path.as_path()) } else { path.parent() };
        let folder = folder.map(|folder| if folder.as_os_str().is_empty() { ".".as_ref() } else { folder });
        if let (Some(watcher), Some(folder)) = (&mut watcher, folder)
            && let Err(error) = watcher.watch(folder, mode)
        {
            tracing::warn!(%error, path = %path.display(), "is polled only");
        }
    }
    // What changed before the watch stood has made no event.
    look().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            hinted = hints.recv(), if watcher.is_some() => {
                if hinted.is_none() {
                    watcher = None;
                }
                settle(&mut hints).await;
            }
        }
        look().await;
    }
}

/// Whether an event is about something that was given: its neighbours in a busy folder are not.
fn concerns(changed: &[PathBuf], given: &[(PathBuf, bool)]) -> bool {
    // An event without paths says that events were lost.
    changed.is_empty()
        || changed.iter().any(|changed| {
            let same_name = |path: &Path| changed.file_name() == path.file_name();
            given
                .iter()
                .any(|(path, is_dir)| if *is_dir { changed.starts_with(path) } else { same_name(path) })
        })
}

async fn settle(hints: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + LONGEST_SETTLE;
    while Instant::now() < latest {
        if tokio::time::timeout(SETTLE, hints.recv()).await.is_err() {
            return;
        }
    }
}
