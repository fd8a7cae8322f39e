//! `leno demo`: the bundled scenario with its load, failures and verdict.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use leno_lab::{
    demo::{self, Broken, DemoOptions, Event, Say},
    standin::behaviour::parse_duration,
};

use crate::{Output, failure::Failure, up::more_files};

/// Run a mesh of several clusters under load, change it and break it, and say what holds
///
/// Real control planes and a real proxy for each of the workloads, on this machine: a canary is shifted and a policy is put
/// in force by editing files, certificates are renewed, a region and then all control planes are lost and come back. Each
/// phase prints its claim, its figures and whether it holds. The exit code is 1 when a claim does not hold.
#[derive(Args)]
#[command(after_help = "Examples:
  leno demo
  leno demo --for 2m --rate 500
  leno demo --for 60s -o json | tail -1 | jq .phases")]
pub(crate) struct Arguments {
    /// Time for everything, the start included; the phases share what is left. At least 20s: less shows nothing. A phase takes
    /// longer than its share where something must come back first
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = time)]
    for_: Duration,
    /// Services, in 600 workloads for 200 of them
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(6..=500))]
    services: u32,
    /// Clusters; the last is a region of its own
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=3))]
    clusters: u32,
    /// Requests a second
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=20_000))]
    rate: u32,
    /// Threads that carry the traffic of all proxies
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    workers: usize,
    /// Run each control plane and proxy as a process of its own: several GiB for 200 services
    #[arg(long)]
    processes: bool,
    /// Lifetime of certificates, which are renewed at about half of it [default: 100s, less when there is less time than 60s]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    certificate_ttl: Option<Duration>,
    /// Go through these phases only
    #[arg(long, value_name = "PHASE", value_enum)]
    only: Vec<Phase>,
    /// Break a phase on purpose, to see that the demo says so
    #[arg(long = "break", value_name = "PHASE", value_enum)]
    broken: Option<Break>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Phase {
    Steady,
    Canary,
    Policy,
    Certificates,
    Region,
    ControlPlane,
}

#[derive(Clone, Copy, ValueEnum)]
enum Break {
    /// The file says another split than is claimed
    Canary,
    /// The policy denies a caller that it should not
    Policy,
}

fn time(text: &str) -> Result<Duration, String> {
    at_least(demo::LEAST_TIME, "in less, a canary's share, a renewal or a lost region cannot be seen", text)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    at_least(Duration::from_secs(5), "in less, there is no time for a renewal", text)
}

fn at_least(least: Duration, why: &str, text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).ok_or_else(|| format!("{text:?} is no time such as 60s or 5m"))?;
    if time < least { Err(format!("at least {least:?}: {why}")) } else { Ok(time) }
}

/// Runs it to its end.
pub(crate) fn demo(arguments: Arguments, output: Output) -> Result<(), Failure> {
    more_files();
    let Arguments { for_, services, clusters, rate, workers, processes, certificate_ttl, only, broken } =
        arguments;
    let options = DemoOptions {
        for_,
        services: services as usize,
        clusters: clusters as usize,
        rate: rate.into(),
        workers,
        processes,
        certificate_ttl,
        only: only.into_iter().map(phase).collect(),
        broken: broken.map(|broken| match broken {
            Break::Canary => Broken::Canary,
            Break::Policy => Broken::Policy,
        }),
        record: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime can be made")
        .map_err(Failure::Usage)?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = demo::run(options, say(output)) => report.map_err(|error| Failure::Unreachable(error.into())),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Failure::usage)?;
                Err(Failure::usage(anyhow::anyhow!("interrupted: there is no verdict")))
            }
        }
    })?;
    if output == Output::Json {
        let text = serde_json::to_string(&report).map_err(Failure::usage)?;
        // Nobody reads any more when this fails.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
    if report.holds { Ok(()) } else { Err(Failure::DoesNotHold) }
}

fn phase(phase: Phase) -> demo::Phase {
    match phase {
        Phase::Steady => demo::Phase::Steady,
        Phase::Canary => demo::Phase::Canary,
        Phase::Policy => demo::Phase::Policy,
        Phase::Certificates => demo::Phase::Certificates,
        Phase::Region => demo::Phase::Region,
        Phase::ControlPlane => demo::Phase::ControlPlane,
    }
}

/// Lines, and on a terminal the present state below them. Beside JSON, all of it goes to standard error.
fn say(output: Output) -> Say {
    let to_stderr = output == Output::Json;
    let live = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    Arc::new(move |event| {
        let text = match event {
            Event::Line(line) if live => format!("\r\x1b[2K{line}\n"),
            Event::Line(line) => format!("{line}\n"),
            Event::Live(line) if live => format!("\r\x1b[2K{line}"),
            Event::Live(_) => return,
        };
        // Nobody reads any more when this fails.
        let _ =
            if to_stderr { write_now(std::io::stderr(), &text) } else { write_now(std::io::stdout(), &text) };
    })
}

fn write_now(mut to: impl std::io::Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
