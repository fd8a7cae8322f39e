//! `support --check|--write`: what happens to every field of every CRD, shown by setting it.
//!
//! ```text
//! schema tables --fields--> fixtures (a valid object, with and without the field) --> judge (compile both, compare) --> report
//!                                                                                        cases (which case shows it) --^
//! ```
//!
//! Invariants: a field either changes what is compiled (`works`), or a diagnostic names it (`refused`), or the check fails; a
//! fixture that is itself at fault fails too, so that a field can never pass because nobody managed to set it.
//! Must not know: what any field means; that is in `fixtures/*.yaml`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use leno_apis::schema::{self, FieldPath};

mod cases;
mod document;
mod fixture;
mod judge;
mod report;

use fixture::{Fixtures, KindFixture};
use judge::{Judge, Verdict};

/// The groups whose fields are enumerated.
const GROUPS: [&str; 3] = ["gateway.networking.k8s.io", "networking.istio.io", "security.istio.io"];
/// The checked-in table.
const TABLE: &str = "docs/reference/support.md";

/// What happens to one field, annotation or label.
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) verdict: Verdict,
    /// The case that shows it: file and name.
    pub(crate) case: Option<String>,
    pub(crate) experimental: bool,
}

/// What happens to the fields of a kind.
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

/// How many fields there are of each verdict.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    works: usize,
    without_case: usize,
    refused: usize,
    silent: usize,
}

impl Counts {
    fn of(sections: &[Section]) -> Self {
        let mut counts = Self::default();
        for row in sections.iter().flat_map(|section| &section.rows) {
            match row.verdict {
                Verdict::Works => {
                    counts.works += 1;
                    counts.without_case += usize::from(row.case.is_none());
                }
                Verdict::Refused { .. } => counts.refused += 1,
                Verdict::Silent | Verdict::Unjudged(_) => counts.silent += 1,
            }
        }
        counts
    }
}

/// Runs the check in the root of the repository; returns the last line, or what is wrong.
///
/// # Errors
/// A field that is silent, or a checked-in table that is stale.
pub(crate) fn run(root: &Path, write: bool) -> anyhow::Result<String> {
    let fixtures = Fixtures::read()?;
    let shown = cases::Shown::read(&root.join("cases"))?;
    let judge = Judge::new(&fixtures.world, judge::compiler)?;
    let mut sections = fields(&judge, &fixtures)?;
    let mut metadata = labels(&judge, &fixtures)?;
    for section in &mut sections {
        for row in &mut section.rows {
            row.case = shown.field(&section.title, &row.path);
        }
    }
    for row in &mut metadata.rows {
        let name = row.path.split(' ').next().unwrap_or_default();
        row.case = shown.label(name);
    }
    for row in sections.iter().chain([&metadata]).flat_map(|section| {
        section.rows.iter().filter(|row| matches!(row.verdict, Verdict::Silent | Verdict::Unjudged(_)))
    }) {
        eprintln!("{}: {}", row.path, row.verdict);
    }
    let counts = Counts::of(&sections);
    let silent = counts.silent + Counts::of(std::slice::from_ref(&metadata)).silent;
    let text = report::markdown(&sections, &metadata);
    let table = root.join(TABLE);
    if write {
        std::fs::create_dir_all(table.parent().context("the table has a directory")?)?;
        std::fs::write(&table, &text)?;
    } else if std::fs::read_to_string(&table).unwrap_or_default() != text {
        anyhow::bail!("{TABLE} is stale: run `cargo run -p xtask -- support --write`");
    }
    if counts.without_case > 0 {
        eprintln!("{} of the fields that work are not in a case yet", counts.without_case);
    }
    let total = counts.works + counts.refused + counts.silent;
    let line = format!("fields {total} works {} refused {} silent {silent}", counts.works, counts.refused);
    anyhow::ensure!(silent == 0, "{line}");
    Ok(line)
}

/// A kind, and the world in which its fields are judged.
struct Subject<'f> {
    title: String,
    fields: &'static [FieldPath],
    fixture: &'f KindFixture,
    judge: Judge,
}

/// Judges every field of every kind, field by field on all cores.
fn fields(judge: &Judge, fixtures: &Fixtures) -> anyhow::Result<Vec<Section>> {
    let mut subjects = Vec::new();
    for (group, kind) in schema::kinds().filter(|(group, _)| GROUPS.contains(group)) {
        let fixture = fixtures.kind(group, kind).with_context(|| format!("no fixture for {group} {kind}"))?;
        let judge = judge.with_world(&fixture.world)?;
        let title = format!("{kind}.{group}");
        subjects.push(Subject { title, fields: schema::fields(group, kind), fixture, judge });
    }
    let leaves: Vec<_> = subjects
        .iter()
        .flat_map(|subject| subject.fields.iter().map(move |field| (subject, field)))
        .filter(|(subject, field)| is_leaf(subject.fields, field))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<Vec<((&str, &str), Verdict)>> {
        let mut done = Vec::new();
        while let Some((subject, field)) = leaves.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = subject.judge.field(&fixtures.settings(subject.fixture, field)?);
            done.push(((subject.title.as_str(), field.path), verdict));
        }
        Ok(done)
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let of = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        };
        threads.into_iter().map(of).collect::<Vec<_>>()
    });
    let mut verdicts = BTreeMap::new();
    for part in found {
        verdicts.extend(part?);
    }
    Ok(subjects.iter().map(|subject| subject.section(&verdicts)).collect())
}

impl Subject<'_> {
    /// Its rows: objects and lists are as their first child that works, else as the first that is refused.
    fn section(&self, verdicts: &BTreeMap<(&str, &str), Verdict>) -> Section {
        let of_children = |parent: &str| {
            let below = || {
                let own = verdicts.iter().filter(|((title, _), _)| *title == self.title);
                own.filter(|((_, path), _)| is_below(path, parent)).map(|(_, verdict)| verdict)
            };
            let works = below().find(|verdict| matches!(verdict, Verdict::Works));
            let refused = || below().find(|verdict| matches!(verdict, Verdict::Refused { .. }));
            works.or_else(refused).cloned().unwrap_or(Verdict::Silent)
        };
        let rows = self.fields.iter().map(|field| {
            let own = verdicts.get(&(self.title.as_str(), field.path)).cloned();
            let verdict = own.unwrap_or_else(|| of_children(field.path));
            Row { path: field.path.to_owned(), verdict, case: None, experimental: field.experimental }
        });
        Section { title: self.title.clone(), rows: rows.collect() }
    }
}

/// Whether a field is set by itself: it has no fields below it.
fn is_leaf(fields: &[FieldPath], field: &FieldPath) -> bool {
    !fields.iter().any(|other| is_below(other.path, field.path))
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[', '{']))
}

/// Judges the annotations and labels that we read.
fn labels(judge: &Judge, fixtures: &Fixtures) -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for entry in &fixtures.metadata {
        let verdict = judge.with_world(&entry.world)?.field(&entry.settings());
        rows.push(Row { path: entry.title(), verdict, case: None, experimental: false });
    }
    Ok(Section { title: "Annotations and labels".to_owned(), rows })
}

#[cfg(test)]
mod tests;
