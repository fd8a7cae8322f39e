//! The Leno command line.
//!
//! Invariants: what a user asked for goes to standard output, everything else to standard error; the exit code says what
//! happened (see [`Failure`]).

mod analyze;
mod cases;
mod check;
mod cluster;
mod color;
mod demo;
mod explain;
mod failure;
mod get;
mod inject;
mod install;
mod live;
mod offline;
mod run;
mod status;
mod up;
mod upgrade;
mod why;
mod write;

use std::{io, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

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
                  3 the mesh or cluster cannot be reached.\nLENO_MESH names the file in which a running mesh describes itself; LENO_LOG chooses what is logged."
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
    /// For people; objects are YAML.
    #[default]
    #[value(alias = "yaml")]
    Text,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Arguments),
    Demo(demo::Arguments),
    Run(run::Arguments),
    Analyze(analyze::Arguments),
    Explain(explain::Arguments),
    Test(cases::Arguments),
    Status(status::Arguments),
    Get(get::Arguments),
    Why(why::Arguments),
    Inject(inject::Arguments),
    Install(install::Install),
    Upgrade(upgrade::Arguments),
    Uninstall(install::Uninstall),
    Check(check::Arguments),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// What is logged unless LENO_LOG says otherwise: what is wrong, and that it is right again.
const LOGGED: &str = "warn,leno_lab::mesh::repaired=info,leno_telemetry::otlp::reach=info";

fn main() -> ExitCode {
    let Arguments { command, output } = Arguments::parse();
    let filter = EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(color::on_stderr())
        .with_target(false)
        .init();
    let result = match command {
        Command::Up(arguments) => up::up(arguments, output),
        Command::Demo(arguments) => demo::demo(arguments, output),
        Command::Run(arguments) => run::run(&arguments),
        Command::Analyze(arguments) => analyze::analyze(&arguments, output),
        Command::Explain(arguments) => explain::explain(&arguments, output),
        Command::Test(arguments) => cases::test(&arguments, output),
        Command::Status(arguments) => status::status(&arguments, output),
        Command::Get(arguments) => get::get(&arguments, output),
        Command::Why(arguments) => why::why(&arguments, output),
        Command::Inject(arguments) => inject::inject(&arguments, output),
        Command::Install(arguments) => install::install(arguments, output),
        Command::Upgrade(arguments) => upgrade::run(arguments, output),
        Command::Uninstall(arguments) => install::uninstall(arguments, output),
        Command::Check(arguments) => check::run(arguments, output),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            match output {
                Output::Text => write::line(&format!("leno {version}")),
                Output::Json => write::json(&serde_json::json!({ "version": version })),
            }
            Ok(())
        }
        Command::Completion { shell } => {
            // Written by us: `generate` panics when nobody reads any more.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "leno", &mut script);
            write::bytes(&script);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
