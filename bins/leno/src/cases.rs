//! `leno test`: behaviour cases against manifests.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use leno_analyze::cases::{self, Summary};
use leno_compile::MeshSettings;
use serde_json::json;

use crate::{Output, color, failure::Failure, write};

/// Deepest folder of cases.
const MAX_DEPTH: usize = 16;

/// Run behaviour cases
///
/// A case is a request and what must happen to it: allowed or denied, by which rule, to which backends. Cases run offline
/// against the manifests that they name, through the same code as in a proxy. See docs/guide/testing-policy.md for the format.
/// Exit code 1 when a case does not hold, 2 when a file or a case cannot be read; the others are run all the same.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Files or folders of cases
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show the cases that hold too
    #[arg(short, long)]
    verbose: bool,
}

/// Runs them.
pub(crate) fn test(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in &arguments.paths {
        collect(path, 0, &mut files)
            .with_context(|| format!("{} cannot be read", path.display()))
            .map_err(Failure::Usage)?;
    }
    if files.is_empty() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "no file of cases (.yaml, .yml) is there: nothing was tested"
        )));
    }
    let mut reports = Vec::new();
    let mut unreadable = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path);
        let text =
            text.with_context(|| format!("{} cannot be read", path.display())).map_err(Failure::Usage)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let load = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string());
        let (file, errors) = cases::read_sound(&path.display().to_string(), &text, &load);
        reports.extend(cases::run_file(&file, &MeshSettings::default()).cases);
        unreadable.extend(errors.iter().map(ToString::to_string));
    }
    let summary = Summary::of(reports);
    let failed = summary.failed;
    match output {
        Output::Json => write::json(&json!({
            "passed": summary.passed, "failed": failed, "errors": unreadable, "cases": summary.cases,
        })),
        Output::Text => {
            for case in summary.cases.iter().filter(|case| arguments.verbose || !case.passed) {
                write::line(&case.to_string());
            }
            let good = failed == 0 && unreadable.is_empty();
            let rest = match unreadable.len() {
                0 => String::new(),
                mistakes => format!("; not all were run: {}", write::count(mistakes, "mistake")),
            };
            let text = format!("{} passed, {failed} failed{rest}", summary.passed);
            write::line(&if good { color::good(&text) } else { color::bad(&text) });
        }
    }
    if !unreadable.is_empty() {
        return Err(Failure::Usage(anyhow::anyhow!("{}", unreadable.join("\n"))));
    }
    if failed > 0 { Err(Failure::DoesNotHold) } else { Ok(()) }
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<_> =
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        // What a case loads lies in folders beside the cases.
        let yaml = entry.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml
            || (entry.is_dir()
                && depth < MAX_DEPTH
                && entry.file_name().is_none_or(|name| name != "fixtures"))
        {
            collect(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}
