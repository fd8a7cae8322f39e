//! Repository chores: `cargo run -p xtask -- check-layers|schema|support`.
//!
//! Holds the rules that the compiler cannot: which crate may depend on which (DESIGN, "Crates and the way they may depend
//! on each other"), that no module is called after nothing, that every module says what it is for, and that no field of an API is silently ignored.

mod layers;
mod modules;
mod schema;
mod support;

use std::io::Write as _;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Repository chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Checks the dependencies between crates and the names and headers of modules.
    CheckLayers,
    /// Writes `crates/apis/src/schema/*.txt` from the CRDs in the Go modules of the Gateway API and Istio.
    Schema,
    /// Sets every field of every CRD and reports what comes of it.
    Support {
        /// Fails when a field is silently ignored or `docs/reference/support.md` is stale (as without any flag).
        #[arg(long, conflicts_with = "write")]
        check: bool,
        /// Writes `docs/reference/support.md`.
        #[arg(long)]
        write: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::CheckLayers => {
            let mut faults = layers::faults(&layers::workspace()?)?;
            faults.extend(modules::faults(std::path::Path::new("."))?);
            for fault in &faults {
                eprintln!("{fault}");
            }
            anyhow::ensure!(faults.is_empty(), "{} faults", faults.len());
            Ok(())
        }
        Chore::Schema => schema::write(std::path::Path::new("crates/apis/src/schema")),
        Chore::Support { check: _, write } => {
            let line = support::run(std::path::Path::new("."), write)?;
            Ok(writeln!(std::io::stdout(), "{line}")?)
        }
    }
}
