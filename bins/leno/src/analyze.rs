//! `leno analyze`: what is wrong with manifests.

use std::{collections::BTreeMap, path::PathBuf};

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
/// workloads, policies that select nothing. Kinds that a mesh does not use are listed once. Exit code 1 when there is an
/// error, 2 when the manifests cannot be found, 3 when there is no mesh.
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
    let mut unused: BTreeMap<String, u64> = BTreeMap::new();
    if files.is_empty() {
        live::block_on(async {
            for cluster in live::clusters(which)? {
                let mut answer = live::ask(&cluster, "/v1/diagnostics").await?;
                if let Value::Array(items) = answer["diagnostics"].take() {
                    found.extend(items);
                }
                let status = live::ask(&cluster, "/v1/status").await?;
                for (kind, count) in status["unused_kinds"].as_object().into_iter().flatten() {
                    *unused.entry(kind.clone()).or_default() += count.as_u64().unwrap_or(0);
                }
            }
            Ok(())
        })?;
    } else {
        let offline = offline::read(files)?;
        found.extend(offline.diagnostics().iter().map(|diagnostic| json!(diagnostic)));
        unused.extend(offline.reading.unused_kinds.iter().map(|(kind, count)| (kind.clone(), *count as u64)));
    }
    let is = |severity: Severity| {
        let severity = json!(severity);
        found.iter().filter(move |item| item["severity"] == severity).count()
    };
    let (errors, warnings) = (is(Severity::Error), is(Severity::Warning));
    match output {
        Output::Json => write::json(&json!({
            "errors": errors, "warnings": warnings, "diagnostics": found, "unused_kinds": unused,
        })),
        Output::Text => {
            for item in &found {
                write::line(&write::diagnostic(item));
            }
            if !unused.is_empty() {
                let kinds: Vec<_> = unused.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
                write::line(&format!("not used: {}", kinds.join(", ")));
            }
            let summary = format!("{errors} errors, {warnings} warnings");
            write::line(&if errors == 0 { color::good(&summary) } else { color::bad(&summary) });
        }
    }
    if errors > 0 || (*strict && warnings > 0) { Err(Failure::DoesNotHold) } else { Ok(()) }
}
