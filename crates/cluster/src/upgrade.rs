//! What an installation would change in a cluster, before it does.
//!
//! Invariants: the API server says what would change (server-side apply with `dryRun`), so that its defaults and others' fields are no
//! difference; nothing is changed here. What is left of the release before, and is no object of this one, is named, never guessed:
//! it has the labels of this revision.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use leno_install::{Names, Values, objects};
use serde_json::Value;

use crate::{
    check::{Finding, When, check},
    install::MANAGER,
    object::Named,
    problem::{Problem, is_status},
};

/// The label with the release that an object is of.
const VERSION: &str = "app.kubernetes.io/version";
/// Fields of an object that are named; more are counted.
const FIELDS: usize = 6;
/// Characters of a value that are shown.
const SHOWN: usize = 60;
/// Objects of one kind that are looked at for what is left.
const LEFT: u32 = 500;

/// Kinds that a release may have had objects of, besides those of this one.
const KINDS: [(&str, &str); 5] = [
    ("v1", "Service"),
    ("apps/v1", "DaemonSet"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
];

/// What would happen to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It would be made.
    New,
    /// Nothing.
    Same,
    /// These fields would change, as `path: before -> after`; the number of those that are not named.
    Fields(Vec<String>, usize),
    /// It would be deleted: this release has no such object.
    Left(Value),
    /// The API server would not take it, and why.
    Refused(String),
}

/// One object, and what would happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Kind, namespace and name.
    pub object: String,
    /// What would happen.
    pub change: Change,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.change {
            Change::New => write!(f, "new     {object}"),
            Change::Same => write!(f, "same    {object}"),
            Change::Fields(fields, more) => {
                write!(f, "changes {object}")?;
                fields.iter().try_for_each(|field| write!(f, "\n          {field}"))?;
                if *more > 0 { write!(f, "\n          and {more} more fields") } else { Ok(()) }
            }
            Change::Left(_) => write!(f, "goes    {object}"),
            Change::Refused(why) => write!(f, "refused {object}: {why}"),
        }
    }
}

/// What an upgrade would do, and what speaks for and against it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As `leno check --pre` finds it, and the versions.
    pub findings: Vec<Finding>,
    /// Each object, in the order of the installation; what would be deleted comes last.
    pub lines: Vec<Line>,
}

/// What installing these values would change. `now` is this machine's time, in seconds since 1970.
///
/// # Errors
/// When the API server cannot be reached.
pub async fn plan(client: &Client, values: &Values, now: i64) -> Result<Plan, Problem> {
    let (names, all) = (Names::of(values), objects(values));
    let mut findings = check(client, values, When::Before, now).await?;
    findings.push(versions(client, &names).await);
    let mut lines = Vec::new();
    for object in &all {
        lines.push(line(client, object).await?);
    }
    lines.extend(left(client, &names, &all, &mut findings).await?);
    Ok(Plan { findings, lines })
}

/// Deletes what a plan says is left, after the new release is in force; `tell` learns of each object.
///
/// # Errors
/// At the first object that the API server does not delete.
pub async fn prune(client: &Client, plan: &Plan, mut tell: impl FnMut(crate::Step)) -> Result<(), Problem> {
    let left = plan.lines.iter().filter_map(|line| match &line.change {
        Change::Left(object) => Some(object.clone()),
        Change::New | Change::Same | Change::Fields(..) | Change::Refused(_) => None,
    });
    crate::uninstall(client, &left.collect::<Vec<_>>(), &mut tell).await
}

/// From which release to which.
async fn versions(client: &Client, names: &Names) -> Finding {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &names.namespace);
    let what = format!("Deployment {}/{}", names.namespace, names.control);
    match api.get_opt(&names.control).await {
        Err(error) => Finding::unseen("upgrade", &what, &error),
        Ok(None) => Finding::fail(
            "upgrade",
            format!("{what} is not there: nothing is installed under this revision"),
            "run `leno install`, or give the values that it was installed with",
        ),
        Ok(Some(found)) => {
            let from = found.metadata.labels.unwrap_or_default().remove(VERSION).unwrap_or_default();
            step(&from, env!("CARGO_PKG_VERSION"))
        }
    }
}

/// Whether one may go from a version to another: proxies of one minor version work with control planes of the next.
fn step(from: &str, to: &str) -> Finding {
    let parts = |text: &str| -> Option<(u64, u64)> {
        let mut parts = text.split(['.', '-', '+']).map(str::parse::<u64>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let text = if from == to {
        format!("the installation is of version {to} already")
    } else {
        format!("from version {from} to {to}")
    };
    match (parts(from), parts(to)) {
        (Some(before), Some(after)) if before > after => Finding::warn(
            "upgrade",
            text,
            "going back is for the release before only: read its changelog for what it does not know yet",
        ),
        (Some((major, minor)), Some(after))
            if after > (major, minor + 1) && (after.0 == major || after != (major + 1, 0)) =>
        {
            Finding::fail(
                "upgrade",
                text,
                "go by one minor version at a time, restarting the pods of the mesh between them",
            )
        }
        (Some(_), Some(_)) => Finding::ok("upgrade", text),
        _ => {
            Finding::warn("upgrade", text, "the version that is installed is not understood: compare by hand")
        }
    }
}

/// What applying one object would change.
async fn line(client: &Client, object: &Value) -> Result<Line, Problem> {
    let named = Named::of(object);
    let api = named.api(client);
    let found = match api.get_opt(&named.name).await {
        Ok(found) => found,
        Err(error) if !matches!(error, kube::Error::Api(_)) => {
            return Err(Problem::of(&named, "get", &error));
        }
        Err(error) => {
            let why = Problem::of(&named, "get", &error).to_string();
            return Ok(Line { object: named.to_string(), change: Change::Refused(why) });
        }
    };
    let change = match found {
        None => Change::New,
        Some(before) => {
            let parameters = PatchParams { dry_run: true, ..PatchParams::apply(MANAGER) };
            match api.patch(&named.name, &parameters, &Patch::Apply(object)).await {
                Ok(after) => difference(&serde_json::json!(before), &serde_json::json!(after)),
                Err(error) if is_status(&error, 404) => Change::New,
                Err(error) => {
                    let problem = Problem::of(&named, "patch", &error);
                    if problem.is_unreachable() {
                        return Err(problem);
                    }
                    Change::Refused(problem.to_string())
                }
            }
        }
    };
    Ok(Line { object: named.to_string(), change })
}

fn difference(before: &Value, after: &Value) -> Change {
    let mut fields = Vec::new();
    compare("", before, after, &mut fields);
    if fields.is_empty() {
        return Change::Same;
    }
    let more = fields.len().saturating_sub(FIELDS);
    fields.truncate(FIELDS);
    Change::Fields(fields, more)
}

/// What the API server counts or keeps by itself is no difference.
fn compare(path: &str, before: &Value, after: &Value, fields: &mut Vec<String>) {
    const OWN: [&str; 5] = [
        "metadata.managedFields",
        "metadata.resourceVersion",
        "metadata.generation",
        "metadata.uid",
        "status",
    ];
    if OWN.contains(&path) || before == after {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&below(key), &of(before), &of(after), fields);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{index}]"), before, after, fields);
            }
        }
        _ => fields.push(format!("{path}: {} -> {}", shown(before), shown(after))),
    }
}

fn shown(value: &Value) -> String {
    let text = if value.is_null() { "nothing".to_owned() } else { value.to_string() };
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// Objects of this revision that are not in the list.
async fn left(
    client: &Client,
    names: &Names,
    all: &[Value],
    findings: &mut Vec<Finding>,
) -> Result<Vec<Line>, Problem> {
    let ours: BTreeSet<String> = all.iter().map(|object| Named::of(object).to_string()).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let own = all.iter().map(|object| (text(&object["apiVersion"]), text(&object["kind"])));
    let more = KINDS.iter().map(|(version, kind)| ((*version).to_owned(), (*kind).to_owned()));
    // A namespace is never pruned.
    let kinds: BTreeSet<_> = own.chain(more).filter(|(_, kind)| kind != "Namespace").collect();
    let labels = format!("app.kubernetes.io/part-of=leno,app.kubernetes.io/instance={}", names.revision());
    let mut lines = Vec::new();
    for (version, kind) in kinds {
        let any = Named::of(&serde_json::json!({"apiVersion": version, "kind": kind}));
        let listed = any.everywhere(client).list(&ListParams::default().labels(&labels).limit(LEFT)).await;
        let items = match listed {
            Ok(list) => list.items,
            Err(error) if is_status(&error, 404) => continue,
            Err(error) if !matches!(error, kube::Error::Api(_)) => {
                return Err(Problem::of(&any, "list", &error));
            }
            Err(error) => {
                findings.push(Finding::unseen("upgrade", &format!("what is left of kind {kind}"), &error));
                continue;
            }
        };
        for item in items {
            let mut metadata = serde_json::json!({"name": item.metadata.name});
            if let Some(namespace) = item.metadata.namespace {
                metadata["namespace"] = namespace.into();
            }
            let object = serde_json::json!({"apiVersion": version, "kind": kind, "metadata": metadata});
            let name = Named::of(&object).to_string();
            if !ours.contains(&name) {
                lines.push(Line { object: name, change: Change::Left(object) });
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::Level;

    #[test]
    fn one_minor_version_at_a_time() {
        let level = |from: &str, to: &str| step(from, to).level;
        assert_eq!(level("0.1.0", "0.1.4"), Level::Ok);
        assert_eq!(level("0.1.0", "0.2.0"), Level::Ok);
        assert_eq!(level("0.9.3", "1.0.0"), Level::Ok);
        assert_eq!(level("0.1.0", "0.3.0"), Level::Fail);
        assert_eq!(level("0.9.0", "1.1.0"), Level::Fail);
        assert_eq!(level("0.2.0", "0.1.0"), Level::Warn);
        assert_eq!(level("latest", "0.1.0"), Level::Warn);
    }

    #[test]
    fn what_the_api_server_keeps_is_no_difference_and_the_rest_is_named_by_its_path() {
        let before = json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": []}, "spec": {"ports": [{"port": 1}], "x": 1}});
        let mut after = before.clone();
        after["metadata"]["resourceVersion"] = json!("2");
        after["status"] = json!({"ready": 1});
        assert_eq!(difference(&before, &after), Change::Same);
        after["spec"] = json!({"ports": [{"port": 2}], "y": "z"});
        let Change::Fields(fields, 0) = difference(&before, &after) else { panic!("no difference") };
        assert_eq!(
            fields,
            ["spec.ports[0].port: 1 -> 2", "spec.x: 1 -> nothing", "spec.y: nothing -> \"z\""]
        );
    }

    #[test]
    fn long_values_and_many_fields_are_cut() {
        let many = |from: u32| {
            json!((0..10).map(|i| (format!("k{i}"), json!(from))).collect::<serde_json::Map<_, _>>())
        };
        let Change::Fields(fields, more) = difference(&many(1), &many(2)) else { panic!("no difference") };
        assert_eq!((fields.len(), more), (FIELDS, 4));
        assert!(shown(&json!("x".repeat(500))).chars().count() <= SHOWN + 1);
    }
}
