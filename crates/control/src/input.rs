//! Where objects come from: the user's manifests, alone or under a supervisor's overlay, or a Kubernetes API server.
//!
//! Invariant: reading happens off the async threads, one reading at a time, and only the newest one waits for the store.

use std::{path::PathBuf, sync::Arc};

use leno_sources::{EmbeddedSource, FileSource, Reading, SourceError, kubernetes::News};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::ControlConfig;

/// A source of objects that is read again and again.
#[derive(Debug)]
pub(crate) enum Input {
    Files(FileSource),
    Embedded(Box<EmbeddedSource>),
}

/// Follows a Kubernetes API server until `stop`. Nothing is said before its first complete reading.
pub(crate) async fn follow_kubernetes(
    client: kube::Client,
    secrets: Vec<String>,
    said: Arc<watch::Sender<Said>>,
    stop: CancellationToken,
) {
    leno_sources::kubernetes::follow(client, secrets, stop, |news| {
        match news {
            News::Reading(reading) => said.send_modify(|said| said.reading = Some(Arc::new(reading))),
            News::Trouble(error) => note(&said, &error),
            News::Well => said.send_modify(|said| said.error = None),
        }
        std::future::ready(())
    })
    .await;
}

/// What the source last said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// The newest reading; `None` before the first.
    pub(crate) reading: Option<Arc<Reading>>,
    /// Why the source cannot be read at present; the reading is then an older one.
    pub(crate) error: Option<Arc<str>>,
}

impl Input {
    /// The source that a configuration names.
    pub(crate) fn of(config: &ControlConfig) -> Self {
        let files = FileSource::new(config.paths.iter().cloned());
        match &config.overlay {
            Some(overlay) => Self::Embedded(Box::new(EmbeddedSource::new(files, overlay.clone()))),
            None => Self::Files(files),
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Files(files) => files.paths().to_vec(),
            Self::Embedded(embedded) => embedded.paths(),
        }
    }

    /// Reads what is there. `None`: nothing changed.
    pub(crate) fn read(&mut self) -> Result<Option<Reading>, SourceError> {
        match self {
            Self::Files(files) => files.read(),
            Self::Embedded(embedded) => embedded.read(),
        }
    }
}

/// Reads again whenever something may have changed, until `stop`.
pub(crate) async fn follow(input: Input, said: Arc<watch::Sender<Said>>, stop: CancellationToken) {
    let paths = input.paths();
    let input = Arc::new(Mutex::new(input));
    leno_sources::watch(&paths, stop, || look(input.clone(), said.clone())).await;
}

async fn look(input: Arc<Mutex<Input>>, said: Arc<watch::Sender<Said>>) {
    let read = tokio::task::spawn_blocking(move || input.lock().read()).await;
    match read {
        Ok(Ok(Some(reading))) => {
            said.send_replace(Said { reading: Some(Arc::new(reading)), error: None });
        }
        Ok(Ok(None)) => {
            said.send_if_modified(|said| said.error.take().is_some());
        }
        Ok(Err(error)) => note(&said, &describe(&error)),
        Err(panicked) => note(&said, &panicked.to_string()),
    }
}

fn note(said: &watch::Sender<Said>, error: &str) {
    tracing::warn!(%error, "the sources cannot be read; the last reading stays in force");
    said.send_if_modified(|said| {
        let news = said.error.as_deref() != Some(error);
        said.error = Some(error.into());
        news
    });
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
