//! Tells when files may have changed: the system's events as hints, and a poll because events can be lost.
//!
//! Invariant: while somebody is writing a file, nobody is told to look, up to a limit: a file that was cut off and not yet
//! written again would read as one whose objects were all deleted.

use std::{
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// After an event, the time in which more of the same edit are expected.
const SETTLE: Duration = Duration::from_millis(50);

/// The longest that a stream of events may put a reading off.
const LONGEST_SETTLE: Duration = Duration::from_millis(300);

/// The longest that a file that is open for writing may put a reading off.
const LONGEST_WRITE: Duration = Duration::from_secs(3);

/// Most files that are being written at once; more than these are read as they are.
const MAX_OPEN: usize = 1024;

/// The files that are being written at present.
type Open = Arc<Mutex<BTreeSet<PathBuf>>>;

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
    let open = Open::default();
    let opened = open.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| concerns(&event.paths, &given) && is_change(&event, &mut opened.lock())) {
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
                settle(&mut hints, &open).await;
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

/// Whether something changed; notes which files are being written.
fn is_change(event: &notify::Event, open: &mut BTreeSet<PathBuf>) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => {
            open.retain(|path| !event.paths.contains(path));
            true
        }
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => {
            if open.len() < MAX_OPEN {
                open.extend(event.paths.iter().cloned());
            }
            true
        }
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => true,
    }
}

/// Waits until nothing has happened for a moment and nobody is writing.
async fn settle(hints: &mut mpsc::Receiver<()>, open: &Open) {
    let begun = Instant::now();
    loop {
        let quiet = tokio::time::timeout(SETTLE, hints.recv()).await.is_err();
        let writing = !open.lock().is_empty();
        if writing && begun.elapsed() >= LONGEST_WRITE {
            // Whoever keeps a file open that long does not write it once; it is read as it is.
            open.lock().clear();
            return;
        }
        if !writing && (quiet || begun.elapsed() >= LONGEST_SETTLE) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_is_being_written_is_looked_at_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "before").unwrap();
        let (stop, (saw, mut seen)) = (CancellationToken::new(), mpsc::channel(100));
        let watching = tokio::spawn({
            let (paths, stop, file) = ([folder.path().to_owned()], stop.clone(), file.clone());
            async move {
                watch(&paths, stop, async || saw.send(fs::read_to_string(&file).unwrap()).await.unwrap())
                    .await
            }
        });
        assert_eq!(seen.recv().await.unwrap(), "before");
        // As an editor saves on a busy machine: the old text is gone a while before the new one is there.
        let mut writer = fs::File::create(&file).unwrap();
        tokio::time::sleep(4 * LONGEST_SETTLE).await;
        writer.write_all(b"after").unwrap();
        drop(writer);
        assert_eq!(seen.recv().await.unwrap(), "after");
        stop.cancel();
        watching.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_stays_open_is_looked_at_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let (stop, (saw, mut seen)) = (CancellationToken::new(), mpsc::channel(100));
        let watching = tokio::spawn({
            let (paths, stop) = ([folder.path().to_owned()], stop.clone());
            async move { watch(&paths, stop, async || saw.send(()).await.unwrap()).await }
        });
        seen.recv().await.unwrap();
        let mut writer = fs::File::create(&file).unwrap();
        writer.write_all(b"never closed").unwrap();
        tokio::time::timeout(2 * LONGEST_WRITE, seen.recv()).await.unwrap().unwrap();
        stop.cancel();
        watching.await.unwrap();
        drop(writer);
    }
}
