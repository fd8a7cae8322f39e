//! Text to documents to a tree of values, each with its line and column.
//!
//! Invariants: a broken document does not lose the documents after it (the text is split at `---` before it is parsed);
//! duplicate keys are errors; size, depth and alias expansion are bounded, so that no text can exhaust memory.
//! Must not know: Kubernetes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span as ParserSpan};

use crate::codes;

mod write;

pub use write::write;

/// Largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 32 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Most values that the aliases of one document may add.
pub const MAX_ALIASED_NODES: usize = 50_000;

/// A position in the text: line and column from 1, both 0 when there is no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A value and its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it starts.
    pub at: Span,
}

/// A YAML (core schema) or JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the text, without duplicate keys.
    Map(Vec<Entry>),
}

/// One key and value of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key starts.
    pub key_at: Span,
    /// The value.
    pub value: Node,
}

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One of `codes::{SYNTAX, LIMIT, DUPLICATE_KEY}`.
    pub code: &'static str,
    /// Where.
    pub at: Span,
    /// What is wrong.
    pub message: String,
}

impl Node {
    /// The value of a key of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The string, when it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same value without positions, from JSON (objects of an API server).
    #[must_use]
    pub fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(int) => Value::Int(int),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(fields) => Value::Map(
                fields
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_at: Span::default(),
                        value: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { value, at: Span::default() }
    }

    /// The value without positions, as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Int(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
            }
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => 0,
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => 0,
        }
    }
}

/// Reads every document of a text; empty documents are left out.
#[must_use]
pub fn documents(text: &str) -> Vec<Result<Node, Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    for (first_line, part) in split(text) {
        if part.len() > MAX_DOCUMENT_BYTES {
            let message = format!("the document is larger than {} MiB", MAX_DOCUMENT_BYTES >> 20);
            documents.push(Err(Problem {
                code: codes::LIMIT,
                at: Span { line: first_line, column: 1 },
                message,
            }));
            continue;
        }
        read_part(part, first_line, &mut documents);
    }
    documents
}

/// Splits at lines that start with `---`, which is a document marker wherever it stands (YAML 1.2, c-forbidden).
fn split(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in (1_u32..).zip(text.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && offset > start {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, index);
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts.retain(|(_, part)| part.lines().any(|line| !is_blank(line)));
    parts
}

/// Lines without content: blank, comments, and the directives and markers around documents.
fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with("%YAML") || line == "---" || line == "..."
}

fn read_part(part: &str, first_line: u32, documents: &mut Vec<Result<Node, Problem>>) {
    let mut builder = Builder { offset: first_line - 1, ..Builder::default() };
    for event in Parser::new_from_str(part) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let (line, column) = (error.marker().line(), error.marker().col());
                let at = builder.place(line, column);
                documents.push(Err(Problem { code: codes::SYNTAX, at, message: error.info().to_owned() }));
                return;
            }
        };
        match builder.take(event, span) {
            Ok(None) => {}
            Ok(Some(node)) if node.value == Value::Null => {}
            Ok(Some(node)) => documents.push(Ok(node)),
            Err(problem) => {
                documents.push(Err(problem));
                return;
            }
        }
    }
}

/// Builds one tree from parser events, without recursion.
#[derive(Default)]
struct Builder {
    offset: u32,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    aliased: usize,
}

struct Open {
    at: Span,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: BTreeSet<String>, key: Option<(String, Span)>, merges: Vec<Node> },
}

impl Builder {
    fn place(&self, line: usize, column: usize) -> Span {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        Span {
            line: line.saturating_add(self.offset),
            column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
        }
    }

    /// Takes one event; gives the root when the document is complete.
    fn take(&mut self, event: Event<'_>, span: ParserSpan) -> Result<Option<Node>, Problem> {
        let at = self.place(span.start.line(), span.start.col());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(None),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(None)
            }
            Event::Alias(anchor) => {
                let node = self.alias(anchor, at)?;
                self.place_node(node, 0, None)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
                let value = scalar(&text, style, tag);
                self.place_node(Node { value, at }, anchor, Some(text))
            }
            Event::SequenceStart(anchor, _) => self.open(at, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let content = Content::Map {
                    entries: Vec::new(),
                    seen: BTreeSet::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(at, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn open(&mut self, at: Span, anchor: usize, content: Content) -> Result<Option<Node>, Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem {
                code: codes::LIMIT,
                at,
                message: format!("the document is nested deeper than {MAX_DEPTH} levels"),
            });
        }
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(Problem { code: codes::SYNTAX, at, message: "a key must be a string".to_owned() });
        }
        self.open.push(Open { at, anchor, content });
        Ok(None)
    }

    fn close(&mut self) -> Result<Option<Node>, Problem> {
        let Some(Open { at, anchor, content }) = self.open.pop() else { return Ok(None) };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { mut entries, mut seen, merges, .. } => {
                for merge in merges {
                    merge_into(&mut entries, &mut seen, merge)?;
                }
                Value::Map(entries)
            }
        };
        self.place_node(Node { value, at }, anchor, None)
    }

    /// Puts a finished value where it belongs: into the open list, as key or value into the open mapping, or as the root.
    fn place_node(
        &mut self,
        node: Node,
        anchor: usize,
        raw: Option<Cow<'_, str>>,
    ) -> Result<Option<Node>, Problem> {
        if anchor != 0 {
            let size = node.size();
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, seen, key, merges } => match key.take() {
                None => {
                    let text = match (raw, node.value) {
                        (Some(raw), _) => raw.into_owned(),
                        (None, Value::Text(text)) => text,
                        (None, _) => {
                            let message = "a key must be a string".to_owned();
                            return Err(Problem { code: codes::SYNTAX, at: node.at, message });
                        }
                    };
                    if text != "<<" && !seen.insert(text.clone()) {
                        let message = format!("key `{text}` is set twice");
                        return Err(Problem { code: codes::DUPLICATE_KEY, at: node.at, message });
                    }
                    *key = Some((text, node.at));
                }
                Some((text, _)) if text == "<<" => merges.push(node),
                Some((text, key_at)) => entries.push(Entry { key: text, key_at, value: node }),
            },
        }
        Ok(None)
    }

    fn alias(&mut self, anchor: usize, at: Span) -> Result<Node, Problem> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(Problem { code: codes::SYNTAX, at, message: "the alias has no anchor".to_owned() });
        };
        self.aliased = self.aliased.saturating_add(*size);
        if self.aliased > MAX_ALIASED_NODES || self.open.len() + node.depth() > MAX_DEPTH {
            return Err(Problem {
                code: codes::LIMIT,
                at,
                message: "the aliases of the document expand too far".to_owned(),
            });
        }
        Ok(node.clone())
    }
}

/// `<<: *defaults`: keys that the mapping has itself win.
fn merge_into(entries: &mut Vec<Entry>, seen: &mut BTreeSet<String>, merge: Node) -> Result<(), Problem> {
    match merge.value {
        Value::Map(merged) => {
            for entry in merged {
                if seen.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Value::List(maps) if maps.iter().all(|map| matches!(map.value, Value::Map(_))) => {
            maps.into_iter().try_for_each(|map| merge_into(entries, seen, map))
        }
        _ => Err(Problem { code: codes::SYNTAX, at: merge.at, message: "`<<` needs a mapping".to_owned() }),
    }
}

/// Resolves a scalar by the YAML 1.2 core schema, which Kubernetes' JSON follows.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Value {
    if tag == Some("str") || (style != ScalarStyle::Plain && tag.is_none()) {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with(['+', '-'])).map(Value::Int);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().filter(|_| !octal.starts_with(['+', '-'])).map(Value::Int);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Value::Int).or_else(|_| text.parse().map(Value::Float)).ok();
    }
    let float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if float && digits.bytes().any(|b| b.is_ascii_digit()) {
        text.parse().map(Value::Float).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
