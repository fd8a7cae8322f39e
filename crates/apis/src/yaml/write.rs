//! Values as YAML text that every parser reads alike.
//!
//! Invariant: reading the text gives the value, in YAML 1.1 as in 1.2: a string that either could take for something else is
//! quoted, and keys keep their order.

use serde_json::{Map, Value};

/// Words that some version of YAML takes for a boolean or null.
const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan"];

/// One document, with a line feed at its end.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => map(fields, 0, &mut text),
        Value::Array(items) if !items.is_empty() => list(items, 0, &mut text),
        Value::String(value) => text = string(value) + "\n",
        other => text = other.to_string() + "\n",
    }
    text
}

fn map(fields: &Map<String, Value>, indent: usize, text: &mut String) {
    for (index, (key, value)) in fields.iter().enumerate() {
        // The first key of a map in a list stands on the line of the list's dash.
        if index > 0 || !text.ends_with("- ") {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        text.push_str(&string(key));
        text.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                text.push('\n');
                map(fields, indent + 2, text);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                list(items, indent, text);
            }
            other => {
                text.push(' ');
                text.push_str(&scalar(other, indent + 2));
                text.push('\n');
            }
        }
    }
}

fn list(items: &[Value], indent: usize, text: &mut String) {
    for (index, value) in items.iter().enumerate() {
        if index > 0 || !text.ends_with("- ") {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        text.push_str("- ");
        match value {
            Value::Object(fields) if !fields.is_empty() => map(fields, indent + 2, text),
            Value::Array(items) if !items.is_empty() => list(items, indent + 2, text),
            other => {
                text.push_str(&scalar(other, indent + 2));
                text.push('\n');
            }
        }
    }
}

/// A value on one line, or a string as a block of lines.
fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::String(text) if is_block(text) => block(text, indent),
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

/// Whether a string reads better, and as safely, as a block of lines.
fn is_block(text: &str) -> bool {
    let plain = |c: char| {
        c == '\n' || c == '\t' || (!c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'))
    };
    text.contains('\n')
        && text.chars().all(plain)
        && !text.starts_with([' ', '\n', '\t'])
        && text.lines().all(|line| !line.ends_with([' ', '\t']) && !line.starts_with('\t'))
        && !text.ends_with("\n\n")
}

fn block(text: &str, indent: usize) -> String {
    let mut block = String::from(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.lines() {
        block.push('\n');
        if !line.is_empty() {
            block.extend(std::iter::repeat_n(' ', indent));
            block.push_str(line);
        }
    }
    block
}

fn string(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    // Text with quotes of its own, such as JSON, reads best between the others.
    if text.contains(['"', '\\']) && !text.contains('\'') && !text.contains(is_odd) {
        return format!("'{text}'");
    }
    // A string of JSON is one of YAML, but for what JSON leaves as it is and YAML calls unprintable.
    let quoted = Value::String(text.to_owned()).to_string();
    quoted.chars().fold(String::new(), |mut quoted, c| {
        if is_odd(c) {
            quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            quoted.push(c);
        }
        quoted
    })
}

/// What YAML calls unprintable, or takes for the end of a line.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a string may stand without quotes: it begins as no number, date or marker does, and holds nothing that ends it.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    let holds = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.' | '='));
    begins && holds && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}
