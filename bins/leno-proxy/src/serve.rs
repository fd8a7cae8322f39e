//! A proxy from its start to its signals.

use anyhow::Context as _;
use leno_proxy::{Bootstrap, JoinToken, Proxy, ProxyOptions, Workers};
use tokio::signal::unix::{SignalKind, signal};

/// Serves until it is told to stop.
pub(crate) fn serve(bootstrap: Bootstrap, join_token: JoinToken) -> anyhow::Result<()> {
    let workers = Workers::start(bootstrap.cores, "traffic").context("no thread can be started")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let workers = (0..workers.len()).map(|index| workers.get(index)).collect();
        let proxy = Box::pin(Proxy::start(ProxyOptions { bootstrap, join_token, workers })).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("drains");
        tokio::select! {
            () = Box::pin(proxy.stop()) => {}
            _ = terminate.recv() => tracing::warn!("was told twice, so it ends at once"),
            _ = interrupt.recv() => tracing::warn!("was told twice, so it ends at once"),
        }
        anyhow::Ok(())
    })
}
