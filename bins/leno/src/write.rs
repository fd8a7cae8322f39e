//! Results on standard output: lines, columns, JSON.

use std::io::{self, Write as _};

use leno_apis::yaml;
use serde_json::{Value, json};

use crate::Output;

/// One line. A reader that has gone away is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line on standard error, for whoever waits. A reader that has gone away is no error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "leno: {text}");
}

/// Text as it is.
pub(crate) fn bytes(text: &[u8]) {
    let _ = io::stdout().write_all(text);
}

/// A value for programs.
pub(crate) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Objects of a cluster: a stream of YAML documents, or for programs one object or `List`.
pub(crate) fn objects(objects: &[Value], output: Output) {
    let text = match output {
        Output::Text => objects.iter().map(yaml::write).collect::<Vec<_>>().join("---\n"),
        Output::Json => {
            let one = match objects {
                [one] => one.clone(),
                many => json!({"apiVersion": "v1", "kind": "List", "items": many}),
            };
            return json(&one);
        }
    };
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Rows under headings, as wide as they need.
pub(crate) fn columns(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let put = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    put(&mut headings.iter().copied());
    for row in rows {
        put(&mut row.iter().map(String::as_str));
    }
}

/// `1 error`, `2 errors`.
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A field of an answer as text: nothing for what is absent.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A diagnostic of the control plane's API, as `leno analyze` writes it.
pub(crate) fn diagnostic(value: &Value) -> String {
    let at = &value["at"];
    let place = match at["line"].as_u64() {
        Some(number) if number > 0 => format!("{}:{number}:{}", text(&at["file"]), at["column"]),
        _ => text(&at["file"]),
    };
    let object = &value["object"];
    let about = match (object["kind"].as_str(), object["namespace"].as_str(), object["name"].as_str()) {
        (Some(kind), Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}: "),
        (Some(kind), None, Some(name)) => format!("{kind} {name}: "),
        _ => String::new(),
    };
    let field = at["field"].as_str().filter(|field| !field.is_empty()).map(|field| format!("{field}: "));
    let expected = value["expected"].as_str().map(|expected| format!("; {expected}"));
    format!(
        "{place}: {}[{}]: {about}{}{}{}",
        text(&value["severity"]).to_lowercase(),
        text(&value["code"]),
        field.unwrap_or_default(),
        text(&value["message"]),
        expected.unwrap_or_default()
    )
}
