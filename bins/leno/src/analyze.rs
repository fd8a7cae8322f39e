//! `leno analyze`: what is wrong with manifests.

use std::path::PathBuf;

use clap::Args;
use leno_apis::Severity;
use serde_json::{Value, json};

use crate::{
    Output, color,
    failure::Failure,
    live::{self, Which},
    offline, write,
};

/// Report problems of manifests
///
/// Offline on files and folders, or, without -f, what the running mesh says of its own. Finds what cannot be read or is
/// refused, references that do not resolve, hosts nobody serves, routes that cannot match, conflicts, subsets without
/// workloads, policies that select nothing. Exit code 1 when there is an error.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Manifests: a file, a folder, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Exit code 1 for warnings too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    which: Which,
}

/// Reports them.
pub(crate) fn analyze(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { files, strict, which } = arguments;
    let mut found: Vec<Value> = Vec::new();
    if files.is_empty() {
        live::block_on(async {
            for cluster in live::clusters(which)? {
                let mut answer = live::ask(&cluster, "/v1/diagnostics").await?;
                if let Value::Array(items) = answer["diagnostics"].take() {
                    found.extend(items);
                }
            }
            Ok(())
        })?;
    } else {
        found.extend(offline::read(files)?.diagnostics().iter().map(|diagnostic| json!(diagnostic)));
    }
    let is = |severity: Severity| {
        let severity = json!(severity);
        found.iter().filter(move |item| item["severity"] == severity).count()
    };
    let (errors, warnings) = (is(Severity::Error), is(Severity::Warning));
    match output {
        Output::Json => write::json(&json!({"errors": errors, "warnings": warnings, "diagnostics": found})),
        Output::Text => {
            for item in &found {
                write::line(&write::diagnostic(item));
            }
            let summary = format!("{errors} errors, {warnings} warnings");
            write::line(&if errors == 0 { color::good(&summary) } else { color::bad(&summary) });
        }
    }
    if errors > 0 || (*strict && warnings > 0) { Err(Failure::DoesNotHold) } else { Ok(()) }
}
