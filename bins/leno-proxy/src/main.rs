//! The Leno proxy: sidecar and gateway.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use leno_proxy::{Bootstrap, Proxy, ProxyOptions, Workers};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Longest bootstrap and longest token.
const LONGEST: u64 = 4 << 20;

/// The Leno proxy: sidecar and gateway.
///
/// SIGTERM and SIGINT drain it: it finishes what it has, at most for the bootstrap's `drain`; a second signal ends it at once.
/// Logs go to standard error; LENO_LOG chooses them, as in `LENO_LOG=info,leno_proxy=debug`.
#[derive(Parser)]
#[command(name = "leno-proxy", version)]
struct Arguments {
    /// What the proxy is told at its start, a JSON file
    #[arg(long, value_name = "FILE")]
    bootstrap: PathBuf,
    /// Descriptor from which the one-use join token is read to its end; not needed with a valid certificate on disk
    #[arg(long, value_name = "FD")]
    token_fd: Option<u32>,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
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
    let path = &arguments.bootstrap;
    let text = read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let bootstrap: Bootstrap =
        serde_json::from_str(&text).with_context(|| format!("{} is no bootstrap", path.display()))?;
    let join_token = match arguments.token_fd {
        None => None,
        Some(descriptor) => {
            let token =
                read(Path::new(&format!("/dev/fd/{descriptor}"))).context("the join token cannot be read")?;
            Some(token.trim_end().to_owned()).filter(|token| !token.is_empty())
        }
    };
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

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}
