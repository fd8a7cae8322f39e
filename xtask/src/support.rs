//! `support --check|--write`: what happens to every field of every CRD, shown by setting it.
//!
//! ```text
//! schema tables --fields--> fixtures (a valid object, with and without the field) --> judge (compile both, compare) --> report
//!                                                                                        cases (which case shows it) --^
//! ```
//!
//! Invariants: a field either changes what is compiled (`works`) and is in a case that shows it, or a diagnostic names it
//! (`refused`), or the check fails; a fixture that is itself at fault fails too, so that a field can never pass because nobody managed to set it.
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
/// How many fields that work may be in cases only that would hold without them. It may shrink, never grow.
const ONLY_SET: usize = 13;
/// The checked-in table.
const TABLE: &str = "docs/reference/support.md";

/// What happens to one field, annotation or label.
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) verdict: Verdict,
    /// The case that shows it, or at least sets it.
    pub(crate) case: Option<Shows>,
    pub(crate) experimental: bool,
}

/// A case (file and name) in which a field is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// It does not hold without the field.
    Yes(String),
    /// It would hold without it.
    SetsIt(String),
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
    /// Of those that work, set in cases that hold without them.
    only_set: usize,
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
                    counts.only_set += usize::from(matches!(row.case, Some(Shows::SetsIt(_))));
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
/// A field that is silent, one that works and is in no case, or a checked-in table that is stale.
pub(crate) fn run(root: &Path, write: bool) -> anyhow::Result<String> {
    let fixtures = Fixtures::read()?;
    let shown = cases::Shown::read(&root.join("cases"))?;
    let judge = Judge::new(&fixtures.world, judge::compiler)?;
    let mut sections = fields(&judge, &fixtures)?;
    let mut metadata = labels(&judge, &fixtures)?;
    show(&shown, &mut sections, &mut metadata);
    for row in sections.iter().chain([&metadata]).flat_map(|section| {
        section.rows.iter().filter(|row| matches!(row.verdict, Verdict::Silent | Verdict::Unjudged(_)))
    }) {
        eprintln!("{}: {}", row.path, row.verdict);
    }
    let counts = Counts::of(&sections);
    let of_metadata = Counts::of(std::slice::from_ref(&metadata));
    let silent = counts.silent + of_metadata.silent;
    let without_case = counts.without_case + of_metadata.without_case;
    let only_set = counts.only_set + of_metadata.only_set;
    let text = report::markdown(&sections, &metadata);
    let table = root.join(TABLE);
    if write {
        std::fs::create_dir_all(table.parent().context("the table has a directory")?)?;
        std::fs::write(&table, &text)?;
    } else if std::fs::read_to_string(&table).unwrap_or_default() != text {
        anyhow::bail!("{TABLE} is stale: run `cargo run -p xtask -- support --write`");
    }
    for row in without_case_of(sections.iter().chain([&metadata])) {
        eprintln!("{row}: works, and no case in `cases/` sets it");
    }
    let total = counts.works + counts.refused + counts.silent;
    let line = format!("fields {total} works {} refused {} silent {silent}", counts.works, counts.refused);
    anyhow::ensure!(silent == 0, "{line}");
    anyhow::ensure!(without_case == 0, "{without_case} work without a case that sets it\n{line}");
    anyhow::ensure!(
        only_set <= ONLY_SET,
        "{only_set} work and are in no case that does not hold without them; {ONLY_SET} at most may be so\n{line}"
    );
    Ok(line)
}

/// Finds the case that shows each field and label that works, on all cores.
fn show(shown: &cases::Shown, sections: &mut [Section], metadata: &mut Section) {
    let of_section = |section: &mut Section| {
        let title = section.title.clone();
        let mut found: Vec<(String, Shows)> = Vec::new();
        // The fields below come after the one that holds them. A case that does not hold without one of those does not
        // hold without all of them.
        for row in section.rows.iter_mut().rev().filter(|row| row.verdict == Verdict::Works) {
            let below =
                found.iter().find(|(path, _)| is_below(path, &row.path)).map(|(_, case)| case.clone());
            row.case = below.or_else(|| shown.field(&title, &row.path));
            let shown = row.case.clone().filter(|case| matches!(case, Shows::Yes(_)));
            found.extend(shown.map(|case| (row.path.clone(), case)));
        }
    };
    let queue = std::sync::Mutex::new(sections.iter_mut());
    let work = || {
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some(section) = next else { return };
            of_section(section);
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        (0..cores).for_each(|_| drop(scope.spawn(work)));
        for row in &mut metadata.rows {
            row.case = shown.label(row.path.split(' ').next().unwrap_or_default());
        }
    });
}

/// The fields and labels that work and are in no case.
fn without_case_of<'s>(sections: impl Iterator<Item = &'s Section>) -> impl Iterator<Item = String> {
    sections.flat_map(|section| {
        let works = section.rows.iter().filter(|row| row.verdict == Verdict::Works && row.case.is_none());
        works.map(|row| format!("{} {}", section.title, row.path))
    })
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
