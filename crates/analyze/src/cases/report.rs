//! The outcome of running cases, for people and for programs.
//!
//! Invariant: a failed case says what was expected, what was seen, and the steps that led there.

use std::fmt;

use serde::Serialize;

use super::{check::Mismatch, format::Place};

/// The outcome of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The case's name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// The sentence that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// Where that sentence stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether it holds.
    pub passed: bool,
    /// What differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<Mismatch>,
    /// The steps of the decision, when it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "ok  " } else { "FAIL" };
        write!(f, "{verdict} {} ({})", self.name, self.place)?;
        if self.passed {
            return Ok(());
        }
        if let Some(spec) = &self.spec {
            write!(f, "\n     spec: {spec}")?;
            if let Some(source) = &self.source {
                write!(f, " ({source})")?;
            }
        }
        for Mismatch { what, expected, actual } in &self.mismatches {
            write!(f, "\n     {what}\n       expected: {}", indented(expected))?;
            write!(f, "\n       actual:   {}", indented(actual))?;
        }
        if !self.trace.is_empty() {
            f.write_str("\n     why:")?;
            for step in &self.trace {
                write!(f, "\n       {}", indented(step))?;
            }
        }
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n                 ")
}

/// The outcome of many cases.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// How many hold.
    pub passed: usize,
    /// How many do not.
    pub failed: usize,
    /// Each of them.
    pub cases: Vec<Report>,
}

impl Summary {
    /// Counts reports.
    #[must_use]
    pub fn of(cases: Vec<Report>) -> Self {
        let passed = cases.iter().filter(|case| case.passed).count();
        Self { passed, failed: cases.len() - passed, cases }
    }
}

impl fmt::Display for Summary {
    /// The failed cases in full, then the counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in self.cases.iter().filter(|case| !case.passed) {
            writeln!(f, "{case}")?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}
