//! The Leno control plane: reads manifests, serves discovery and identities to proxies, and its API to people.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use leno_control::ControlConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Leno control plane.
///
/// It ends gracefully on SIGTERM and SIGINT. Logs go to standard error; LENO_LOG chooses them, as in
/// `LENO_LOG=info,leno_control=debug`.
#[derive(Parser)]
#[command(name = "leno-control", version)]
struct Arguments {
    #[command(subcommand)]
    place: Option<Place>,
    /// The configuration, a JSON file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

/// Where a control plane runs.
#[derive(Subcommand)]
enum Place {
    /// On a Kubernetes cluster; the file is that of the ConfigMap that an installation makes
    Kubernetes,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let logs = logs.with_ansi(std::io::stderr().is_terminal());
    if arguments.log_json {
        logs.json().init();
    } else {
        logs.init();
    }
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let path = arguments.config.as_deref().context("--config FILE is needed")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let wrong = || format!("{} is no configuration", path.display());
    let config = match arguments.place {
        None => serde_json::from_str(&text).with_context(wrong)?,
        Some(Place::Kubernetes) => {
            let kubernetes = serde_json::from_str(&text).with_context(wrong)?;
            ControlConfig::on_kubernetes(kubernetes).map_err(anyhow::Error::msg).with_context(wrong)?
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told = stop.clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        });
        let ended = leno_control::run(config, stop).await;
        signals.abort();
        Ok(ended?)
    })
}
