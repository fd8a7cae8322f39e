//! Starts and ends proxies, in this process or apart.
//!
//! Invariant: both forms are started from the same bootstrap and seen the same way.
//! Must not know: pods, overlays.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use leno_proxy::{
    JoinToken, Proxy, ProxyOptions, StartError,
    bootstrap::{ADMIN_PORT, Bootstrap},
};
use tokio::time::{Instant, sleep, timeout};

use super::{api, child::Child, runtime_dir::replace, shared::Shared};

/// How long a proxy may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// Between two questions whether a process is ready.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// What a proxy may take for its end beyond its drain time.
const END_MARGIN: Duration = Duration::from_secs(5);

/// Why a proxy does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyProblem {
    #[error("the proxy cannot start")]
    Start(#[source] StartError),
    #[error("the proxy's process cannot start")]
    Spawn(#[source] io::Error),
    #[error("the proxy was not ready in {READY:?}")]
    NotReady,
    #[error("the proxy's process ended ({0}); its log says why")]
    Ended(String),
}

/// A proxy that runs.
pub(super) enum RunningProxy {
    Here(Proxy),
    Apart { child: Box<Child>, admin: SocketAddr, drain: Duration },
}

/// Starts a proxy; `folder` is its own.
pub(super) async fn start(
    shared: &Shared,
    bootstrap: Bootstrap,
    token: String,
    folder: &Path,
) -> Result<RunningProxy, ProxyProblem> {
    let Some(binaries) = &shared.binaries else {
        let options =
            ProxyOptions { bootstrap, join_token: JoinToken::Once(token), workers: vec![shared.worker()] };
        return Box::pin(Proxy::start(options)).await.map(RunningProxy::Here).map_err(ProxyProblem::Start);
    };
    let (admin, drain) = (bootstrap.own_socket(ADMIN_PORT), bootstrap.drain.duration());
    let file = folder.join("bootstrap.json");
    let text = serde_json::to_vec_pretty(&bootstrap).map_err(|error| ProxyProblem::Spawn(error.into()))?;
    replace(&file, &text).map_err(ProxyProblem::Spawn)?;
    let arguments = ["--bootstrap".as_ref(), file.as_os_str(), "--token-fd".as_ref(), "0".as_ref()];
    let log = folder.join("log");
    let child = Child::start(&binaries.proxy, &arguments, &log, &token).await.map_err(ProxyProblem::Spawn)?;
    Ok(RunningProxy::Apart { child: Box::new(child), admin, drain })
}

impl RunningProxy {
    /// Resolves when it serves, or is known not to.
    pub(super) async fn ready(&mut self) -> Result<(), ProxyProblem> {
        match self {
            Self::Here(proxy) => timeout(READY, proxy.ready()).await.map_err(|_| ProxyProblem::NotReady),
            Self::Apart { child, admin, .. } => {
                let admin = *admin;
                tokio::select! {
                    status = child.ended() => Err(ended(status)),
                    answer = answers(admin) => answer,
                }
            }
        }
    }

    /// Resolves when it has ended by itself, which only a process can.
    pub(super) async fn ended(&mut self) -> ProxyProblem {
        match self {
            Self::Here(_) => std::future::pending().await,
            Self::Apart { child, .. } => ended(child.ended().await),
        }
    }

    /// Lets it finish what it has.
    pub(super) async fn stop(self) {
        match self {
            Self::Here(proxy) => {
                Box::pin(proxy.stop()).await;
            }
            Self::Apart { child, drain, .. } => child.stop(drain + END_MARGIN).await,
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(self) {
        match self {
            Self::Here(proxy) => proxy.kill(),
            Self::Apart { child, .. } => child.kill().await,
        }
    }
}

async fn answers(admin: SocketAddr) -> Result<(), ProxyProblem> {
    let deadline = Instant::now() + READY;
    while Instant::now() < deadline {
        if api::get(admin, "/ready").await.is_ok() {
            return Ok(());
        }
        sleep(ASK_AGAIN).await;
    }
    Err(ProxyProblem::NotReady)
}

fn ended(status: io::Result<std::process::ExitStatus>) -> ProxyProblem {
    ProxyProblem::Ended(status.map_or_else(|error| error.to_string(), |status| status.to_string()))
}
