//! The node's agent of `injection.capture: cni` (docs/adr/0019-cni.md).
//!
//! | module | its job |
//! | --- | --- |
//! | [`place`] | the plugin and its entry in the node's configuration: put in, kept in, taken out |
//! | [`serve`] | the socket at which the plugin asks |
//! | [`namespace`] | rules in a pod's network namespace |
//! | [`leaving`] | whether it is being removed, or only restarted |
//!
//! Invariants: nothing of the node is changed but the plugin's program and its entry; a pod that is started while the agent is away waits
//! for it. Must not know: what pods are for; what they want comes with the question.

mod leaving;
mod namespace;
mod place;
mod serve;

use std::{
    io::{IsTerminal as _, stderr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use leno_cni::Entry;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use self::{leaving::DaemonSet, place::Place};

/// Between two looks at the node's configuration, which others rewrite when they please.
const PERIOD: Duration = Duration::from_millis(500);

/// The node's agent of Leno's CNI plugin.
#[derive(Parser)]
#[command(name = "leno-cni-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the plugin in place and capture the traffic of pods that are started
    Run(Run),
    /// Succeed if the agent of this node has the plugin in place
    Ready {
        /// The agent's socket
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// The plugin's program, which is copied to the node
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/leno-cni")]
    plugin: PathBuf,
    /// Its name on the node
    #[arg(long, value_name = "NAME", default_value = "leno-cni")]
    name: String,
    /// The node's folder of CNI plugins, as it is mounted here
    #[arg(long, value_name = "FOLDER")]
    bin_dir: PathBuf,
    /// The node's folder of CNI configurations, as it is mounted here
    #[arg(long, value_name = "FOLDER")]
    conf_dir: PathBuf,
    /// Where the plugin asks; the same path on the node
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Revision of the control plane whose pods are captured
    #[arg(long, default_value = "default")]
    revision: String,
    /// Namespaces whose pods are never captured
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    exclude_namespaces: Vec<String>,
    /// The DaemonSet, as NAMESPACE/NAME: when it is gone, the node is left as it was found
    #[arg(long, value_name = "NAMESPACE/NAME")]
    daemon_set: DaemonSet,
}

/// What keeps the plugin from being in place; shared with whoever asks.
type State = Arc<Mutex<Option<String>>>;

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let filter = EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    logs.with_ansi(stderr().is_terminal()).init();
    let done = match command {
        Command::Run(arguments) => run(arguments),
        Command::Ready { socket } => serve::ready(&socket),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Run) -> anyhow::Result<()> {
    let Run { plugin, name, bin_dir, conf_dir, socket, revision, exclude_namespaces, daemon_set } = arguments;
    let path = socket.to_str().context("--socket is no text")?.to_owned();
    let entry = Entry { program: name, revision, socket: path, exclude_namespaces };
    let place = Place { plugin, bin_dir, conf_dir, entry };
    place.program().context("the plugin cannot be copied to the node")?;
    let state: State = Arc::new(Mutex::new(Some("the plugin has not been put in place yet".to_owned())));
    // Who finds the entry finds somebody to ask.
    serve::start(&socket, &state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(keep(&place, &state))?;
    if !runtime.block_on(daemon_set.is_gone()) {
        tracing::info!("ends; the plugin stays in place, and pods of the mesh wait for the next agent");
        return Ok(());
    }
    place.remove().context("the node's configuration cannot be restored")?;
    tracing::info!("ends; its DaemonSet is gone, and so is the plugin's entry in the node's configuration");
    Ok(())
}

/// Keeps the plugin in place until it is told to end.
async fn keep(place: &Place, state: &State) -> anyhow::Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = ticks.tick() => look(place, state),
        }
    }
}

fn look(place: &Place, state: &State) {
    let problem = match place.keep() {
        Ok(None) => None,
        Ok(Some(file)) => {
            tracing::info!(file = %file.display(), "the plugin is in the node's configuration");
            None
        }
        Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
    };
    let mut known = state.lock();
    if *known != problem {
        match &problem {
            Some(why) => tracing::warn!("the plugin is not in place: {why}"),
            None => tracing::info!("the plugin is in place"),
        }
        *known = problem;
    }
}
