//! Leno on real Kubernetes clusters: numbered checks, one after another, on what `e2e/run` has prepared.
//!
//! ```text
//!   cluster   kubectl, and waiting          mesh    images, installation, applications
//!   load      an edge under load            checks  what must hold
//!   api       changes by the millisecond    cgroup  what a container has used
//!   authority a root that clusters share
//! ```
//!
//! Invariant: a check that was not run is not passed; everything waits with a bound.
//! Must not know: Leno's code. It sees what a user sees: kubectl, the programs, the wire.

mod api;
mod authority;
mod cgroup;
mod checks;
mod cluster;
mod load;
mod mesh;

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;

use crate::{
    checks::{CHECKS, Skipped},
    cluster::Cluster,
    mesh::Mesh,
};

/// Runs the checks; e2e/run brings the clusters up and down around it.
#[derive(Parser)]
struct Arguments {
    /// Folder of the built programs
    #[arg(long, value_name = "FOLDER")]
    bin: PathBuf,
    /// Where evidence of failures goes
    #[arg(long, value_name = "FOLDER")]
    evidence: PathBuf,
    /// Print the clusters that the checks need (name, nodes, region), and run none
    #[arg(long)]
    clusters: bool,
    /// `short`, or words that the names of checks to run contain; everything otherwise
    only: Vec<String>,
}

fn main() -> ExitCode {
    let Arguments { bin, evidence, clusters, only } = Arguments::parse();
    let short = only.iter().any(|word| word == "short");
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word.as_str()));
    let chosen = CHECKS.iter().filter(|it| it.always || if short { it.short } else { wanted(it.name) });
    let two = chosen.clone().any(|check| check.name.starts_with("clusters"));
    let mut out = std::io::stdout();
    if clusters {
        let east = if two { "\neast 1 us-east-1" } else { "" };
        let _closed = writeln!(out, "west 2 us-west-2{east}");
        return ExitCode::SUCCESS;
    }
    let east = two.then(|| Cluster::named("east"));
    let mesh = Mesh { west: Cluster::named("west"), east, bin, evidence };
    let (mut passed, mut failed) = (0, 0);
    for (index, check) in chosen.enumerate() {
        let began = Instant::now();
        let outcome = (check.run)(&mesh);
        let seconds = began.elapsed().as_secs();
        let line = match outcome {
            Err(error) if error.is::<Skipped>() => format!("skipped {} {}: {error}", index + 1, check.name),
            Ok(()) => {
                passed += 1;
                format!("ok {} {} ({seconds} s)", index + 1, check.name)
            }
            Err(error) => {
                failed += 1;
                mesh.keep_evidence(index + 1);
                format!("FAILED {} {}: {error:#} ({seconds} s)", index + 1, check.name)
            }
        };
        let _closed = writeln!(out, "{line}");
        if check.always && failed > 0 {
            let _closed = writeln!(out, "what follows needs this: not run");
            break;
        }
    }
    let _closed = writeln!(out, "{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
