//! Starts and ends a cluster's control plane, in this process or apart.
//!
//! Invariant: a control plane that is started again has the configuration it had before.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use leno_control::{Control, ControlConfig, ControlError};
use tokio::time::{Instant, sleep};

use super::{api, child::Child, runtime_dir::replace, shared::Shared};

/// How long a control plane may take to be ready.
const READY: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(20);
const GRACE: Duration = Duration::from_secs(5);

/// Why a control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlProblem {
    /// It cannot start.
    #[error("the control plane of {cluster} cannot start")]
    Start {
        /// Its cluster.
        cluster: String,
        /// Why.
        #[source]
        source: Box<ControlError>,
    },
    /// Its process cannot start.
    #[error("the control plane's process of {cluster} cannot start")]
    Spawn {
        /// Its cluster.
        cluster: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not ready.
    #[error("the control plane of {cluster} was not ready in {READY:?}; its log is {}", log.display())]
    NotReady {
        /// Its cluster.
        cluster: String,
        /// What it said.
        log: PathBuf,
    },
}

/// A control plane, running or not.
pub(super) struct ControlPlane {
    config: ControlConfig,
    folder: PathBuf,
    shared: Arc<Shared>,
    running: Option<RunningControl>,
}

enum RunningControl {
    Here(Control),
    Apart(Child),
}

impl ControlPlane {
    pub(super) fn new(config: ControlConfig, folder: PathBuf, shared: Arc<Shared>) -> Self {
        Self { config, folder, shared, running: None }
    }

    pub(super) fn config(&self) -> &ControlConfig {
        &self.config
    }

    /// Starts it unless it runs, and waits until it is ready.
    pub(super) async fn start(&mut self) -> Result<(), ControlProblem> {
        if self.running.is_some() {
            return Ok(());
        }
        let cluster = || self.config.cluster.to_string();
        let log = self.folder.join("control.log");
        self.running = Some(match &self.shared.binaries {
            None => {
                let failed = |source| ControlProblem::Start { cluster: cluster(), source: Box::new(source) };
                RunningControl::Here(Box::pin(Control::start(self.config.clone())).await.map_err(failed)?)
            }
            Some(binaries) => {
                let failed = |source| ControlProblem::Spawn { cluster: cluster(), source };
                let file = self.folder.join("control.json");
                let text = serde_json::to_vec_pretty(&self.config).map_err(|error| failed(error.into()))?;
                replace(&file, &text).map_err(failed)?;
                let arguments = ["--config".as_ref(), file.as_os_str()];
                let child = Child::start(&binaries.control, &arguments, &log, "").await.map_err(failed)?;
                RunningControl::Apart(child)
            }
        });
        let deadline = Instant::now() + READY;
        while api::get(self.config.api, "/readyz").await.is_err() {
            if Instant::now() > deadline {
                return Err(ControlProblem::NotReady { cluster: cluster(), log });
            }
            sleep(ASK_AGAIN).await;
        }
        Ok(())
    }

    /// Ends it: in good order, or at once.
    pub(super) async fn end(&mut self, at_once: bool) {
        match self.running.take() {
            None => {}
            // In this process it is never asked to say goodbye: its streams are cut either way.
            Some(RunningControl::Here(control)) => {
                if let Err(error) = control.stop().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a control plane had failed");
                }
            }
            Some(RunningControl::Apart(child)) if at_once => child.kill().await,
            Some(RunningControl::Apart(child)) => child.stop(GRACE).await,
        }
    }
}
