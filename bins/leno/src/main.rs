//! The Leno command line.
//!
//! Invariants: what a user asked for goes to standard output, everything else to standard error; the exit code says what
//! happened (see [`Failure`]).

mod color;
mod failure;
mod up;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use failure::Failure;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A service mesh that explains itself.
///
/// `leno up -f MANIFESTS` runs a whole mesh on this machine: a control plane, a proxy for each replica, and stand-in
/// applications that call each other as the manifests' environment says. The other commands ask a running mesh, or files.
#[derive(Parser)]
#[command(
    name = "leno",
    version,
    after_help = "Exit codes: 0 done; 1 a check failed or a claim does not hold; 2 wrong usage or input that cannot be read; \
                  3 the mesh cannot be reached.\nLENO_MESH names the file in which a running mesh describes itself; LENO_LOG chooses what is logged."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How results are written
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Arguments),
}

fn main() -> ExitCode {
    let Arguments { command, output } = Arguments::parse();
    let filter = EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(color::on_stderr())
        .with_target(false)
        .init();
    let result = match command {
        Command::Up(arguments) => up::up(arguments, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
