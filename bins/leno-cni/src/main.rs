//! The program of the CNI plugin: a static one without a runtime, because it runs on nodes of any kind, as root, at the start and the end
//! of every pod.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

/// Longest configuration: all annotations of a pod are in it.
const LONGEST: u64 = 4 << 20;

fn main() -> ExitCode {
    let mut input = String::new();
    if io::stdin().take(LONGEST).read_to_string(&mut input).is_err() {
        // Half a text is no configuration, which is what is then said.
        input.clear();
    }
    let (printed, well) = leno_cni_plugin::run(|name| std::env::var(name).ok(), &input);
    let written = match printed {
        Some(value) => io::stdout().write_all(value.to_string().as_bytes()),
        None => Ok(()),
    };
    if well && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
