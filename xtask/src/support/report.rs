//! The table as Markdown, for users.
//!
//! Invariant: the same verdicts give the same text, so that a stale table is seen.

use std::fmt::Write as _;

use super::judge::Verdict;
use super::{Counts, Section, Shows};

const HEAD: &str = "# What each field does

Written by `cargo run -p xtask -- support --write`, which sets every field of the Gateway API's and Istio's CRDs in a valid object
and looks what comes of it; `make test` fails when this file is stale or a field is silently ignored.

- **works**: it changes what proxies are told or what the object's status says. The case (in `cases/`) shows what it does: it does
  not hold without the field. *Set in* names a case that sets the field and would hold without it.
- **refused**: this release does not act on it and says so: the code of the diagnostic (`leno analyze --code LN1009` says what one
  means), and the smallest part that is withheld because of it: the *field*, the *rule* (match, route, backend, listener, policy) that
  holds it, or the *object*.
- **on Kubernetes**: it changes what runs a Gateway there, and no traffic; elsewhere it is refused, and counted so.

Fields marked with ° are of the experimental channel of the Gateway API.

";

/// Fields of a Gateway that are for what runs it: the control plane's tests of the objects that it renders show them.
const OF_WHAT_RUNS_IT: [&str; 2] = ["spec.infrastructure.annotations", "spec.infrastructure.parametersRef"];

/// The whole table.
pub(super) fn markdown(sections: &[Section], metadata: &Section) -> String {
    let mut text = HEAD.to_owned();
    let all = Counts::of(sections);
    let _ = writeln!(
        text,
        "{} fields: {} work, {} are refused.\n",
        all.works + all.refused,
        all.works,
        all.refused
    );
    let _ = writeln!(text, "| kind | works | refused |\n| --- | ---: | ---: |");
    for section in sections {
        let counts = Counts::of(std::slice::from_ref(section));
        let anchor = section.title.to_lowercase().replace('.', "");
        let _ = writeln!(text, "| [{}](#{anchor}) | {} | {} |", section.title, counts.works, counts.refused);
    }
    for section in sections.iter().chain([metadata]) {
        let _ = writeln!(text, "\n## {}\n", section.title);
        let head = if std::ptr::eq(section, metadata) { "name" } else { "field" };
        let _ = writeln!(text, "| {head} | | shown by, or withheld |\n| --- | --- | --- |");
        for row in &section.rows {
            let mark = if row.experimental { "°" } else { "" };
            let case = match &row.case {
                Some(Shows::Yes(case)) => case.clone(),
                Some(Shows::SetsIt(case)) => format!("set in {case}"),
                None => "no case yet".to_owned(),
            };
            let runs_it = section.title.starts_with("Gateway.gateway.")
                && OF_WHAT_RUNS_IT.iter().any(|path| row.path.starts_with(path));
            let (verdict, note) = match &row.verdict {
                Verdict::Refused { effect: "field", .. } if runs_it => {
                    ("on Kubernetes", "[what runs the Gateway](../guide/gateways.md) has them".to_owned())
                }
                Verdict::Works => ("works", case),
                Verdict::Refused { code, effect } => ("refused", format!("{code}, {effect}")),
                Verdict::Silent => ("**silent**", String::new()),
                Verdict::Unjudged(_) => ("**not judged**", String::new()),
            };
            let _ = writeln!(text, "| `{}`{mark} | {verdict} | {} |", row.path, note.replace('|', "\\|"));
        }
    }
    text
}
