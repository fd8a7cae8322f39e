//! `leno analyze`: what is wrong with manifests.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::anyhow;
use clap::Args;
use leno_analyze::codes as of_analysis;
use leno_apis::{Severity, closest, codes as of_reading};
use leno_compile::codes as of_compiling;
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
/// error, 2 when the manifests cannot be found, 3 when there is no mesh. --code says what the code of a finding means.
#[derive(Args)]
#[command(after_help = "Examples:
  leno analyze -f shop/
  leno analyze --code LN1009
  leno analyze --code all")]
pub(crate) struct Arguments {
    /// Manifests: a file, a folder, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Exit code 1 for warnings too
    #[arg(long)]
    strict: bool,
    /// Say what a code means, such as LN1009, or `all` of them; nothing is analyzed
    #[arg(long, value_name = "CODE", conflicts_with_all = ["files", "strict", "cluster"])]
    code: Vec<String>,
    #[command(flatten)]
    which: Which,
}

/// Reports them.
pub(crate) fn analyze(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { files, strict, code, which } = arguments;
    if !code.is_empty() {
        return explain_codes(code, output);
    }
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
            let summary = [write::count(errors, "error"), write::count(warnings, "warning")].join(", ");
            write::line(&if errors == 0 { color::good(&summary) } else { color::bad(&summary) });
        }
    }
    if errors > 0 || (*strict && warnings > 0) { Err(Failure::DoesNotHold) } else { Ok(()) }
}

/// Every code with its meaning, ascending.
fn all_codes() -> impl Iterator<Item = (&'static str, &'static str)> {
    [of_reading::ALL, of_compiling::ALL, of_analysis::ALL].into_iter().flatten().copied()
}

/// Says what codes mean.
fn explain_codes(asked: &[String], output: Output) -> Result<(), Failure> {
    let mut told = Vec::new();
    for code in asked {
        let before = told.len();
        told.extend(all_codes().filter(|(known, _)| code == "all" || known.eq_ignore_ascii_case(code)));
        if told.len() == before {
            let meant = closest(code, all_codes().map(|(known, _)| known));
            let hint = meant.map_or_else(
                || "`leno analyze --code all` lists them".to_owned(),
                |meant| format!("did you mean {meant}?"),
            );
            return Err(Failure::Usage(anyhow!("there is no code {code}; {hint}")));
        }
    }
    match output {
        Output::Json => {
            let all = told.iter().map(|(code, meaning)| json!({"code": code, "meaning": meaning}));
            write::json(&all.collect());
        }
        Output::Text => told.iter().for_each(|(code, meaning)| write::line(&format!("{code}: {meaning}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once_in_order_and_means_something() {
        let codes: Vec<&str> = all_codes().map(|(code, _)| code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        assert!(all_codes().all(|(_, meaning)| !meaning.is_empty()));
        for layer in ["LN0", "LN1", "LN2"] {
            assert!(codes.iter().any(|code| code.starts_with(layer)), "{layer}");
        }
    }
}
