//! `leno check`: whether Leno could be installed into a cluster, or works there.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use leno_cluster::check::{Finding, Level, When, check};
use serde_json::{Value, json};

use crate::{Output, failure::Failure, install::Subject, live, write};

/// Check whether Leno could be installed into a cluster, or works there
///
/// Prints a line for each thing that was looked at: `ok`, `warn` or `fail`, what was found, and what to do. Nothing is changed; one pod
/// is created with dry run, to see whether the webhook answers. Takes the values of the installation. Exit code 1 when a line fails.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Before an installation: versions, CRDs, and your right to install
    #[arg(long)]
    pre: bool,
    #[command(flatten)]
    subject: Subject,
}

/// Looks and prints.
pub(crate) fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { pre, subject } = arguments;
    let (values, cluster) = subject.read()?;
    let when = if pre { When::Before } else { When::After };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    live::block_on(async {
        let client = cluster.connect().await?;
        let findings = check(&client, &values, when, i64::try_from(now).unwrap_or(i64::MAX)).await;
        let findings = findings.map_err(|problem| Failure::Unreachable(problem.into()))?;
        print(&findings, output);
        if findings.iter().any(|finding| finding.level == Level::Fail) {
            return Err(Failure::DoesNotHold);
        }
        Ok(())
    })
}

fn print(findings: &[Finding], output: Output) {
    match output {
        Output::Text => findings.iter().for_each(|finding| write::line(&finding.to_string())),
        Output::Json => write::json(&findings.iter().map(finding_json).collect()),
    }
}

/// A line for programs.
pub(crate) fn finding_json(finding: &Finding) -> Value {
    let Finding { level, about, text, advice } = finding;
    json!({"level": level.as_str(), "about": about, "text": text, "advice": advice})
}
