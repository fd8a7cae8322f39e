//! `leno install` and `leno uninstall`: the objects of an installation, printed or applied.
//!
//! Invariant: what is printed is what is applied; both take the one list of `leno_install::objects`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use leno_install::{Overrides, Values, objects, values};
use serde_json::Value;

use crate::{Output, failure::Failure, write};

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

/// Install Leno into a cluster
///
/// Makes the same objects as the Helm chart does with the same values.
#[derive(Args)]
pub(crate) struct Install {
    /// The same as --values
    #[arg(short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
    /// Print the objects, in the order in which they are to be created
    #[arg(long)]
    dry_run: bool,
}

/// Remove an installation from a cluster
///
/// Takes the values that it was installed with; --dry-run prints the objects in the order in which they are to be deleted.
#[derive(Args)]
pub(crate) struct Uninstall {
    /// The same as --values
    #[arg(short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
    /// Print the objects, in the order in which they are to be deleted
    #[arg(long)]
    dry_run: bool,
}

/// Prints or applies them.
pub(crate) fn install(arguments: Install, output: Output) -> Result<(), Failure> {
    let Install { files, choices, dry_run } = arguments;
    let objects = objects(&choices.after(files).read()?);
    if dry_run {
        write::objects(&objects, output);
        return Ok(());
    }
    apply(&objects)
}

/// Prints or deletes them.
pub(crate) fn uninstall(arguments: Uninstall, output: Output) -> Result<(), Failure> {
    let Uninstall { files, choices, dry_run } = arguments;
    let mut objects = objects(&choices.after(files).read()?);
    objects.reverse();
    if dry_run {
        write::objects(&objects, output);
        return Ok(());
    }
    delete(&objects)
}

impl Choices {
    fn after(self, mut files: Vec<PathBuf>) -> Self {
        files.extend(self.values);
        Self { values: files, ..self }
    }
}

/// Applies a list of objects, in its order.
fn apply(_objects: &[Value]) -> Result<(), Failure> {
    Err(Failure::Usage(anyhow!(
        "this build has no client of the API server: leno install --dry-run | kubectl apply --server-side -f -"
    )))
}

/// Deletes a list of objects, in its order.
fn delete(_objects: &[Value]) -> Result<(), Failure> {
    Err(Failure::Usage(anyhow!(
        "this build has no client of the API server: leno uninstall --dry-run | kubectl delete -f -"
    )))
}
