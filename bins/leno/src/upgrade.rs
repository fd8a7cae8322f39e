//! `leno upgrade`: what an installation would change, and the change.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use leno_cluster::{
    Installation,
    check::Level,
    upgrade::{Change, Line, Plan, plan, prune},
};
use leno_install::objects;
use serde_json::{Value, json};

use crate::{
    Output,
    check::finding_json,
    failure::Failure,
    install::{Subject, Told},
    live, write,
};

/// Bring an installation to this version and these values
///
/// Asks the API server first what would change (`--check` stops there) and changes nothing when a line fails: versions, CRDs, your
/// rights, an object that would be refused. Then it applies as `leno install` does, waits for the new control plane, and deletes what this
/// release has no object for. Proxies go on meanwhile; pods get the new proxy when they are restarted. For two versions side by
/// side install another revision instead (`--set revision=NAME`). Exit code 1 when a line fails.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Only say what would change
    #[arg(long)]
    check: bool,
    /// How long to wait for the new control plane
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = crate::cluster::duration)]
    timeout: Duration,
    /// Take over fields that another field manager (such as Helm) has set
    #[arg(long)]
    force_conflicts: bool,
}

/// Plans, prints, and changes unless it was only asked for.
pub(crate) fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { subject, check, timeout, force_conflicts } = arguments;
    let (values, cluster) = subject.read()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    live::block_on(async {
        let client = cluster.connect().await?;
        let plan = plan(&client, &values, i64::try_from(now).unwrap_or(i64::MAX)).await;
        let plan = plan.map_err(|problem| Failure::Unreachable(problem.into()))?;
        let fails = stands_in_the_way(&plan, force_conflicts);
        if check || fails || output == Output::Text {
            print(&plan, output);
        }
        if fails {
            return Err(Failure::DoesNotHold);
        }
        if check {
            return Ok(());
        }
        let all = objects(&values);
        let how = Installation { wait: Some(timeout), force: force_conflicts };
        let mut told = Told::new(output);
        let mut result = leno_cluster::install(&client, &all, how, |step| told.take(step)).await;
        if result.is_ok() {
            result = prune(&client, &plan, |step| told.take(step)).await;
        }
        told.end(result, all.len(), "applied")
    })
}

/// Whether anything keeps the upgrade from being made; a conflict does not when fields are to be taken over.
fn stands_in_the_way(plan: &Plan, force: bool) -> bool {
    let refused = |line: &Line| match &line.change {
        Change::Refused(why) => !(force && why.contains("--force-conflicts")),
        Change::New | Change::Same | Change::Fields(..) | Change::Left(_) => false,
    };
    plan.findings.iter().any(|finding| finding.level == Level::Fail) || plan.lines.iter().any(refused)
}

fn print(plan: &Plan, output: Output) {
    if output == Output::Json {
        let findings: Vec<Value> = plan.findings.iter().map(finding_json).collect();
        let objects: Vec<Value> = plan.lines.iter().map(line_json).collect();
        write::json(&json!({"findings": findings, "objects": objects}));
        return;
    }
    plan.findings.iter().for_each(|finding| write::line(&finding.to_string()));
    let same = |line: &&Line| line.change == Change::Same;
    plan.lines.iter().filter(|line| !same(line)).for_each(|line| write::line(&line.to_string()));
    let same = plan.lines.iter().filter(same).count();
    write::line(&format!("{same} of {} objects stay as they are", plan.lines.len()));
}

fn line_json(line: &Line) -> Value {
    let Line { object, change } = line;
    let (what, fields, more, why) = match change {
        Change::New => ("new", &[][..], 0, None),
        Change::Same => ("same", &[][..], 0, None),
        Change::Fields(fields, more) => ("changes", fields.as_slice(), *more, None),
        Change::Left(_) => ("goes", &[][..], 0, None),
        Change::Refused(why) => ("refused", &[][..], 0, Some(why)),
    };
    json!({"object": object, "change": what, "fields": fields, "more_fields": more, "why": why})
}
