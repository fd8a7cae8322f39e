//! The Leno proxy: sidecar and gateway.

mod capture;
mod pod;
mod serve;

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use leno_proxy::{Bootstrap, JoinToken};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Longest bootstrap and longest token.
const LONGEST: u64 = 4 << 20;

/// The Leno proxy: sidecar and gateway.
///
/// SIGTERM and SIGINT drain it: it finishes what it has, at most for the drain time; a second signal ends it at once.
/// Logs go to standard error; LENO_LOG chooses them, as in `LENO_LOG=info,leno_proxy=debug`.
#[derive(Parser)]
#[command(
    name = "leno-proxy",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    embedded: Embedded,
}

/// The proxy of an embedded mesh (`leno up`), which is told everything in a file.
#[derive(Args)]
struct Embedded {
    /// What the proxy is told at its start, a JSON file
    #[arg(long, value_name = "FILE", required = true)]
    bootstrap: Option<PathBuf>,
    /// Descriptor from which the one-use join token is read to its end; not needed with a valid certificate on disk
    #[arg(long, value_name = "FD")]
    token_fd: Option<u32>,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve beside a pod's application; told everything by the pod's environment
    Sidecar(pod::Arguments),
    /// Serve a Gateway in a pod of its own; told everything by the pod's environment
    Gateway(pod::Arguments),
    /// Have the kernel redirect this network namespace's connections to the proxy
    Capture(capture::Arguments),
}

fn main() -> ExitCode {
    let Arguments { command, embedded } = Arguments::parse();
    let done = match command {
        None => from_file(&embedded),
        Some(Command::Sidecar(arguments)) => pod::serve(&arguments, leno_proxy::bootstrap::Role::Sidecar),
        Some(Command::Gateway(arguments)) => pod::serve(&arguments, leno_proxy::bootstrap::Role::Gateway),
        Some(Command::Capture(arguments)) => {
            log("info", false);
            capture::run(&arguments)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn from_file(arguments: &Embedded) -> anyhow::Result<()> {
    log("info", arguments.log_json);
    let path = arguments.bootstrap.as_deref().context("--bootstrap is missing")?;
    let text = read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let bootstrap: Bootstrap =
        serde_json::from_str(&text).with_context(|| format!("{} is no bootstrap", path.display()))?;
    let join_token = match arguments.token_fd {
        None => JoinToken::None,
        Some(descriptor) => {
            let token =
                read(Path::new(&format!("/dev/fd/{descriptor}"))).context("the join token cannot be read")?;
            match token.trim_end() {
                "" => JoinToken::None,
                token => JoinToken::Once(token.to_owned()),
            }
        }
    };
    serve::serve(bootstrap, join_token)
}

/// Starts logging. `LENO_LOG` wins over `level`.
fn log(level: &str, json: bool) {
    let filter = EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let logs = logs.with_ansi(io::stderr().is_terminal());
    if json {
        logs.json().init();
    } else {
        logs.init();
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}
