//! The Prometheus text exposition format, version 0.0.4.
//!
//! Invariant: label values are escaped (`\`, `"`, line feed), so no peer-given text can forge a line.

use std::fmt::{Display, Write};

use super::buckets::{Buckets, HistogramTotal};

/// Writes the `# HELP` and `# TYPE` lines of a family.
pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# HELP {name} {}\n# TYPE {name} {kind}",
        help.replace('\\', "\\\\").replace('\n', "\\n")
    );
}

/// Writes one sample. `labels` is already escaped, without braces.
pub(crate) fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}

/// Writes the samples of one histogram.
pub(crate) fn histogram(
    out: &mut String,
    name: &str,
    labels: &str,
    buckets: &Buckets,
    total: &HistogramTotal,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0_u64;
    let bounds = buckets.bounds().iter().map(String::as_str).chain(["+Inf"]);
    for (index, bound) in bounds.enumerate() {
        count += total.cells.get(index).copied().unwrap_or(0);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    }
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(out, "{name}_sum{braces} {}\n{name}_count{braces} {count}", buckets.sum_text(total.sum));
}

/// Appends `name="value"` with a comma before it where needed.
pub(crate) fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_value_cannot_forge_a_line() {
        let mut out = String::new();
        label(&mut out, "a", "x\"} 1\nforged 2\\");
        assert_eq!(out, r#"a="x\"} 1\nforged 2\\""#);
    }
}
