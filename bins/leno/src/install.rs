//! `leno install` and `leno uninstall`: the objects of an installation, printed or applied.
//!
//! Invariant: what is printed is what is applied; both take the one list of `leno_install::objects`.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgAction, Args};
use leno_cluster::{Installation, Problem, Step};
use leno_install::{Overrides, Values, objects, values};
use serde_json::{Value, json};

use crate::{Output, cluster::Cluster, failure::Failure, live, write};

/// What a user chooses about an installation.
#[derive(Args)]
pub(crate) struct Choices {
    /// Values, a YAML file; later ones win (all of them: deploy/helm/leno/values.yaml)
    #[arg(long = "values", value_name = "FILE")]
    values: Vec<PathBuf>,
    /// One value, as `image.registry=example.com`; the value is YAML, `\.` is a dot within a key
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

impl Choices {
    /// The values that files and `--set` give.
    pub(crate) fn read(&self) -> Result<Values, Failure> {
        let mut overrides = Overrides { files: Vec::new(), set: self.set.clone() };
        for path in &self.values {
            let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
            overrides.files.push((path.display().to_string(), text.map_err(Failure::Usage)?));
        }
        values(&overrides).map_err(Failure::usage)
    }
}

/// An installation that a command is about: what its user chooses, and the cluster it is in.
#[derive(Args)]
pub(crate) struct Subject {
    /// The same as --values, which win over these
    #[arg(short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    cluster: Cluster,
}

impl Subject {
    /// Its values, and where it is.
    pub(crate) fn read(self) -> Result<(Values, Cluster), Failure> {
        let Self { mut files, choices, cluster } = self;
        files.extend(choices.values);
        Ok((Choices { values: files, ..choices }.read()?, cluster))
    }
}

/// Install Leno into a cluster
///
/// Makes the same objects as the Helm chart does with the same values, by server-side apply (field manager `leno-install`), and waits
/// until the control plane is available. The webhook comes last. Again with other values it is an upgrade. Exit code 1 when the API
/// server does not take an object or the wait is over; then it is said what was applied.
#[derive(Args)]
pub(crate) struct Install {
    #[command(flatten)]
    subject: Subject,
    /// Print the objects, in the order in which they are to be created
    #[arg(long)]
    dry_run: bool,
    /// Wait until the control plane is available
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = crate::cluster::duration)]
    timeout: Duration,
    /// Take over fields that another field manager (such as Helm) has set
    #[arg(long)]
    force_conflicts: bool,
}

/// Remove an installation from a cluster
///
/// Takes the values that it was installed with; --dry-run prints the objects in the order in which they are to be deleted. The namespace
/// stays when another revision, or your Secret `cacerts`, is in it. Pods that have a proxy keep it until they are created anew.
#[derive(Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    subject: Subject,
    /// Print the objects, in the order in which they are to be deleted
    #[arg(long)]
    dry_run: bool,
}

/// Prints or applies them.
pub(crate) fn install(arguments: Install, output: Output) -> Result<(), Failure> {
    let Install { subject, dry_run, wait, timeout, force_conflicts } = arguments;
    let (values, cluster) = subject.read()?;
    let objects = objects(&values);
    if dry_run {
        write::objects(&objects, output);
        return Ok(());
    }
    let how = Installation { wait: wait.then_some(timeout), force: force_conflicts };
    live::block_on(async {
        let client = cluster.connect().await?;
        let mut told = Told::new(output);
        let result = leno_cluster::install(&client, &objects, how, |step| told.take(step)).await;
        told.end(result, objects.len(), "applied")
    })
}

/// Prints or deletes them.
pub(crate) fn uninstall(arguments: Uninstall, output: Output) -> Result<(), Failure> {
    let Uninstall { subject, dry_run } = arguments;
    let (values, cluster) = subject.read()?;
    let mut objects = objects(&values);
    objects.reverse();
    if dry_run {
        write::objects(&objects, output);
        return Ok(());
    }
    live::block_on(async {
        let client = cluster.connect().await?;
        let mut told = Told::new(output);
        let result = leno_cluster::uninstall(&client, &objects, |step| told.take(step)).await;
        told.end(result, objects.len(), "deleted")
    })
}

/// The steps, told as they happen; for programs together at the end.
pub(crate) struct Told {
    output: Output,
    steps: Vec<Value>,
}

impl Told {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, steps: Vec::new() }
    }

    pub(crate) fn take(&mut self, step: Step) {
        let (what, object, note) = match step {
            Step::Applied(object) => ("applied", object, None),
            Step::Skipped(object, why) => ("skipped", object, Some(why)),
            Step::Deleted(object) => ("deleted", object, None),
            Step::Absent(object) => ("absent", object, None),
            Step::Ready(object) => ("ready", object, None),
            Step::Waiting(object, state) => {
                // Progress is not a result; nobody reading it is no error.
                let _ = writeln!(io::stderr(), "waiting for {object}: {state}");
                return;
            }
        };
        if self.output == Output::Text {
            let note = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            write::line(&format!("{what:<7} {object}{note}"));
        }
        self.steps.push(json!({"step": what, "object": object, "note": note}));
    }

    /// How it ended; after a failure also how far it came.
    pub(crate) fn end(self, result: Result<(), Problem>, all: usize, verb: &str) -> Result<(), Failure> {
        if self.output == Output::Json {
            let problem = result.as_ref().err().map(ToString::to_string);
            write::json(&json!({"steps": self.steps, "problem": problem}));
        }
        let Err(problem) = result else { return Ok(()) };
        let done = self.steps.iter().filter(|step| step["step"] == verb).count();
        let unreachable = problem.is_unreachable();
        let error = anyhow::Error::from(problem).context(format!("{done} of {all} objects were {verb}"));
        Err(if unreachable { Failure::Unreachable(error) } else { Failure::Refused(error) })
    }
}
