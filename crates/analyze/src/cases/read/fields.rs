//! Keys of a mapping, each taken once; what is left is unknown.

use std::{cell::RefCell, sync::Arc};

use leno_apis::{
    closest,
    yaml::{Entry, Node, Span, Value},
};

use super::CaseError;

/// The errors of one file.
pub(super) struct Errors {
    pub(super) file: Arc<str>,
    found: RefCell<Vec<CaseError>>,
}

impl Errors {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.into(), found: RefCell::new(Vec::new()) }
    }

    pub(super) fn add(&self, at: Span, message: impl Into<String>) {
        let error =
            CaseError { file: self.file.clone(), line: at.line, column: at.column, message: message.into() };
        self.found.borrow_mut().push(error);
    }

    pub(super) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    pub(super) fn into_all(self) -> Vec<CaseError> {
        let mut all = self.found.into_inner();
        all.sort_by_key(|error| (error.line, error.column));
        all
    }
}

/// The keys of a mapping that nobody has taken yet.
pub(super) struct Fields<'d> {
    left: Vec<&'d Entry>,
    taken: Vec<&'static str>,
    errors: &'d Errors,
}

impl<'d> Fields<'d> {
    pub(super) fn of(node: &'d Node, errors: &'d Errors) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { left: entries.iter().collect(), taken: Vec::new(), errors }),
            _ => {
                errors.add(node.at, "expected a mapping");
                None
            }
        }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'d Node> {
        self.taken.push(key);
        let index = self.left.iter().position(|entry| entry.key == key)?;
        Some(&self.left.remove(index).value)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.take(key).and_then(|node| text(node, self.errors))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.errors.add(node.at, "expected `true` or `false`");
                None
            }
        }
    }

    pub(super) fn integer<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let node = self.take(key)?;
        let number = match node.value {
            Value::Int(number) => T::try_from(number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.errors.add(node.at, "expected a whole number");
        }
        number
    }

    pub(super) fn list(&mut self, key: &'static str) -> &'d [Node] {
        match self.take(key) {
            None => &[],
            Some(node) => match &node.value {
                Value::List(items) => items,
                _ => {
                    self.errors.add(node.at, "expected a list");
                    &[]
                }
            },
        }
    }

    /// Reports the keys that nobody took. Whether there are none.
    pub(super) fn finish(self) -> bool {
        for entry in &self.left {
            let expected = match closest(&entry.key, self.taken.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("expected one of {}", self.taken.join(", ")),
            };
            self.errors.add(entry.key_at, format!("unknown key `{}`; {expected}", entry.key));
        }
        self.left.is_empty()
    }
}

/// A scalar as text: numbers and booleans as they would be written.
pub(super) fn text(node: &Node, errors: &Errors) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => {
            errors.add(node.at, "expected a text");
            None
        }
    }
}

/// The entries of a mapping whose keys are data.
pub(super) fn entries<'d>(node: &'d Node, errors: &Errors) -> Vec<(&'d str, &'d Node)> {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect(),
        _ => {
            errors.add(node.at, "expected a mapping");
            Vec::new()
        }
    }
}

/// A number or `NUMBER%`.
pub(super) fn percent(node: &Node, errors: &Errors) -> Option<f64> {
    let number = match &node.value {
        Value::Int(number) => i32::try_from(*number).ok().map(f64::from),
        Value::Float(number) => Some(*number),
        Value::Text(text) => text.strip_suffix('%').unwrap_or(text).trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    };
    let number = number.filter(|number| (0.0..=100.0).contains(number));
    if number.is_none() {
        errors.add(node.at, "expected a share in percent, 0 to 100");
    }
    number
}

/// Milliseconds of `500ms`, `2s`, `1.5s`, `1m`, `1h` or of several such parts.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        total += number
            * match &tail[..unit] {
                "ms" => 1.0,
                "s" => 1_000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                _ => return None,
            };
        rest = &tail[unit..];
    }
    (!text.is_empty()).then_some(total as u64)
}
