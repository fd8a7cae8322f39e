//! A consuming decoder: every field of an object is either taken by name or reported.
//!
//! `Cursor` points at a value; `Cursor::object` hands out its `Fields`, from which a decoder takes what it understands.
//! What is left over becomes a diagnostic: "unknown field" when the API has no such field, "not supported" when it has.
//!
//! Invariant: a value that could not be read marks the innermost `Frame` (field, rule or object) as refused, so that a part
//! whose decoding failed can never be mistaken for a part that was absent. Decoders return `None` only after such a mark.
//! Must not know: any kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::codes;
use crate::diagnostic::{Diagnostic, ObjectRef, Refused, Rule, Severity, Source, Spanned};
use crate::schema::{self, FieldPath};
use crate::yaml::{Entry, Node, Span, Value};

mod scalars;
mod suggest;

pub(crate) use scalars::*;
pub use suggest::closest;
pub(crate) use suggest::distance;

/// What the decoding of one object shares.
pub(crate) struct Context {
    pub(crate) file: Arc<str>,
    pub(crate) object: ObjectRef,
    pub(crate) schema: &'static [FieldPath],
    pub(crate) found: RefCell<Vec<Diagnostic>>,
}

/// The part of an object that is withheld when something in it cannot be read.
pub(crate) struct Frame {
    scope: Refused,
    parent: Option<Rc<Frame>>,
    refused: RefCell<Option<Arc<Diagnostic>>>,
}

impl Frame {
    pub(crate) fn object() -> Rc<Self> {
        Rc::new(Self { scope: Refused::Object, parent: None, refused: RefCell::new(None) })
    }

    fn inside(parent: &Rc<Self>, scope: Refused) -> Rc<Self> {
        Rc::new(Self { scope, parent: Some(Rc::clone(parent)), refused: RefCell::new(None) })
    }

    pub(crate) fn refusal(&self) -> Option<Arc<Diagnostic>> {
        self.refused.borrow().clone()
    }

    fn mark(&self, scope: Refused, because: &Arc<Diagnostic>) {
        match &self.parent {
            Some(parent) if self.scope < scope => parent.mark(scope, because),
            _ => {
                self.refused.borrow_mut().get_or_insert_with(|| Arc::clone(because));
            }
        }
    }
}

enum Step<'d> {
    Key(&'d str),
    MapKey(&'d str),
    Index(usize),
}

struct PathNode<'d> {
    parent: Option<Path<'d>>,
    step: Step<'d>,
}

type Path<'d> = Rc<PathNode<'d>>;

/// A value, where it is, and what is refused when it cannot be read.
#[derive(Clone)]
pub(crate) struct Cursor<'d> {
    context: &'d Context,
    frame: Rc<Frame>,
    path: Option<Path<'d>>,
    node: &'d Node,
}

impl<'d> Cursor<'d> {
    pub(crate) fn root(context: &'d Context, frame: &Rc<Frame>, node: &'d Node) -> Self {
        Self { context, frame: Rc::clone(frame), path: None, node }
    }

    fn step(&self, step: Step<'d>, node: &'d Node) -> Self {
        let path = Some(Rc::new(PathNode { parent: self.path.clone(), step }));
        Self { context: self.context, frame: Rc::clone(&self.frame), path, node }
    }

    fn in_frame(mut self, frame: &Rc<Frame>) -> Self {
        self.frame = Rc::clone(frame);
        self
    }

    pub(crate) fn node(&self) -> &'d Node {
        self.node
    }

    fn path(&self, schema: bool) -> String {
        let mut steps = Vec::new();
        let mut next = self.path.as_ref();
        while let Some(node) = next {
            steps.push(&node.step);
            next = node.parent.as_ref();
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Step::MapKey(_) if schema => path.push_str("{}"),
                Step::MapKey(key) => path.push_str(&format!("[{key:?}]")),
                Step::Index(_) if schema => path.push_str("[]"),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    fn source_at(&self, at: Span, field: &str) -> Source {
        Source { file: Arc::clone(&self.context.file), line: at.line, column: at.column, field: field.into() }
    }

    /// Where the value is.
    pub(crate) fn source(&self) -> Source {
        self.source_at(self.node.at, &self.path(false))
    }

    fn report(&self, scope: Refused, mut diagnostic: Diagnostic) {
        diagnostic = diagnostic.about(self.context.object.clone()).refusing(scope);
        if scope == Refused::Field {
            diagnostic.severity = Severity::Warning;
        } else {
            self.frame.mark(scope, &Arc::new(diagnostic.clone()));
        }
        self.context.found.borrow_mut().push(diagnostic);
    }

    /// The value cannot be honoured: whatever the innermost frame is, is withheld.
    pub(crate) fn refuse(&self, code: &'static str, message: impl Into<String>, expected: Option<String>) {
        let mut diagnostic = Diagnostic::error(code, self.source(), message);
        diagnostic.expected = expected;
        let scope = self.frame.scope;
        if scope == Refused::Field {
            // The frame must know, so that the field is dropped as a whole; the rest of the object is untouched.
            self.frame.mark(scope, &Arc::new(diagnostic.clone()));
        }
        self.report(scope, diagnostic);
    }

    pub(crate) fn invalid(&self, message: impl Into<String>) {
        self.refuse(codes::INVALID_VALUE, message, None);
    }

    pub(crate) fn wrong_type(&self, expected: &str) {
        let (found, hint) = match &self.node.value {
            Value::Null => ("nothing".to_owned(), ""),
            Value::Bool(flag) => (format!("the boolean {flag}"), "boolean"),
            Value::Int(int) => (format!("the number {int}"), "number"),
            Value::Float(float) => (format!("the number {float}"), "number"),
            Value::Text(text) => (format!("the string {:?}", shorten(text)), ""),
            Value::List(_) => ("a list".to_owned(), ""),
            Value::Map(_) => ("an object".to_owned(), ""),
        };
        let quote = (expected == "a string" && !hint.is_empty()).then(|| "put it in quotes".to_owned());
        self.refuse(codes::WRONG_TYPE, format!("expected {expected}, found {found}"), quote);
    }

    /// Decodes an object; what `decode` does not take is reported.
    pub(crate) fn object<T>(self, decode: impl FnOnce(&mut Fields<'d>) -> Option<T>) -> Option<T> {
        let mut fields = self.fields()?;
        let value = decode(&mut fields);
        fields.finish(value.is_some());
        value
    }

    /// Decodes an object of which we read a few fields by design and ignore the rest.
    pub(crate) fn object_partly<T>(self, decode: impl FnOnce(&mut Fields<'d>) -> Option<T>) -> Option<T> {
        decode(&mut self.fields()?)
    }

    fn fields(self) -> Option<Fields<'d>> {
        match &self.node.value {
            Value::Map(entries) => {
                let left = entries.iter().filter(|entry| entry.value.value != Value::Null).collect();
                Some(Fields { here: self, left })
            }
            _ => {
                self.wrong_type("an object");
                None
            }
        }
    }

    /// What a misspelt or misplaced field may have been meant to be.
    fn suggest(&self, parent: &str, wrong: &str) -> Option<String> {
        let fields = self.context.schema;
        if let Some(name) = closest(wrong, schema::children(fields, parent)) {
            return Some(format!("did you mean `{name}`?"));
        }
        let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        let name = closest(wrong, fields.iter().map(|field| last(field.path)))?;
        let place = fields
            .iter()
            .map(|field| field.path)
            .filter(|path| last(path) == name)
            .min_by_key(|p| p.len())?;
        Some(format!("did you mean `{place}`?"))
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Option<impl Iterator<Item = Cursor<'d>> + use<'d>> {
        match &self.node.value {
            Value::List(items) => {
                let this = self.clone();
                Some(items.iter().enumerate().map(move |(index, node)| this.step(Step::Index(index), node)))
            }
            _ => {
                self.wrong_type("a list");
                None
            }
        }
    }

    /// The keys and values of a mapping whose keys are data (labels, headers).
    pub(crate) fn entries(&self) -> Option<impl Iterator<Item = (&'d str, Cursor<'d>)> + use<'d>> {
        match &self.node.value {
            Value::Map(entries) => {
                let this = self.clone();
                Some(entries.iter().map(move |entry| {
                    (entry.key.as_str(), this.step(Step::MapKey(&entry.key), &entry.value))
                }))
            }
            _ => {
                self.wrong_type("an object");
                None
            }
        }
    }

    /// Decodes in a frame of its own: what cannot be read in it is withheld here and goes no further.
    pub(crate) fn rule<T>(self, decode: impl FnOnce(Cursor<'d>) -> Option<T>) -> Rule<T> {
        let frame = Frame::inside(&self.frame, Refused::Rule);
        let here = self.in_frame(&frame);
        let value = decode(here.clone());
        here.conclude(value)
    }

    fn conclude<T>(&self, value: Option<T>) -> Rule<T> {
        match (self.frame.refusal(), value) {
            (Some(because), _) => Rule::Refused(because),
            (None, Some(value)) => Rule::Ok(value),
            // A refusal of the whole object was reported instead of one of this rule.
            (None, None) => Rule::Refused(Arc::new(
                Diagnostic::error(codes::INVALID_VALUE, self.source(), "could not be read")
                    .about(self.context.object.clone())
                    .refusing(self.frame.scope),
            )),
        }
    }
}

/// The fields of an object that no decoder has taken yet.
pub(crate) struct Fields<'d> {
    here: Cursor<'d>,
    left: Vec<&'d Entry>,
}

impl<'d> Fields<'d> {
    /// The object itself.
    pub(crate) fn here(&self) -> &Cursor<'d> {
        &self.here
    }

    /// Takes a field; `null` is absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Cursor<'d>> {
        let index = self.left.iter().position(|entry| entry.key == name)?;
        let entry = self.left.remove(index);
        Some(self.here.step(Step::Key(&entry.key), &entry.value))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.iter().any(|entry| entry.key == name)
    }

    /// An optional field. When it is there and cannot be read, the frame is refused and `None` is never used as "absent".
    pub(crate) fn opt<T>(&mut self, name: &str, decode: impl FnOnce(Cursor<'d>) -> Option<T>) -> Option<T> {
        self.take(name).and_then(decode)
    }

    /// An optional field with the default of the API.
    pub(crate) fn or<T>(
        &mut self,
        name: &str,
        default: T,
        decode: impl FnOnce(Cursor<'d>) -> Option<T>,
    ) -> Option<T> {
        match self.take(name) {
            Some(value) => decode(value),
            None => Some(default),
        }
    }

    /// A required field.
    pub(crate) fn req<T>(&mut self, name: &str, decode: impl FnOnce(Cursor<'d>) -> Option<T>) -> Option<T> {
        match self.take(name) {
            Some(value) => decode(value),
            None => {
                self.here.refuse(codes::MISSING_FIELD, format!("`{name}` is required"), None);
                None
            }
        }
    }

    /// A list; absent is empty.
    pub(crate) fn list<T>(&mut self, name: &str, decode: impl Fn(Cursor<'d>) -> Option<T>) -> Vec<T> {
        let items = self.take(name).and_then(|list| list.items());
        items.map(|items| items.filter_map(decode).collect()).unwrap_or_default()
    }

    /// A list whose items are withheld one by one.
    pub(crate) fn rules<T>(&mut self, name: &str, decode: impl Fn(Cursor<'d>) -> Option<T>) -> Vec<Rule<T>> {
        let items = self.take(name).and_then(|list| list.items());
        items.map(|items| items.map(|item| item.rule(&decode)).collect()).unwrap_or_default()
    }

    /// A mapping whose keys are data; absent is empty.
    pub(crate) fn map<T>(
        &mut self,
        name: &str,
        decode: impl Fn(Cursor<'d>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let entries = self.take(name).and_then(|map| map.entries());
        let Some(entries) = entries else { return BTreeMap::new() };
        entries.filter_map(|(key, value)| Some((key.to_owned(), decode(value)?))).collect()
    }

    /// A field that may be dropped as a whole: the rest of the object is true without it.
    pub(crate) fn droppable<T>(
        &mut self,
        name: &str,
        decode: impl FnOnce(Cursor<'d>) -> Option<T>,
    ) -> Option<T> {
        let field = self.take(name)?;
        let frame = Frame::inside(&field.frame, Refused::Field);
        let value = decode(field.in_frame(&frame));
        if frame.refusal().is_some() { None } else { value }
    }

    /// A field that we do not act on although the API has it.
    pub(crate) fn unsupported(&mut self, name: &str, scope: Refused, why: &str) {
        if let Some(field) = self.take(name) {
            let at = field.source();
            field.report(scope, Diagnostic::error(codes::UNSUPPORTED_FIELD, at, why));
        }
    }

    /// As `unsupported`, unless the field says what holds anyway.
    pub(crate) fn unsupported_unless(&mut self, name: &str, default: &str, scope: Refused, why: &str) {
        if self.left.iter().any(|entry| entry.key == name && entry.value.as_text() == Some(default)) {
            self.ignore(name);
        }
        self.unsupported(name, scope, why);
    }

    /// A field that has no effect on traffic and is shown nowhere (comments, names): worth knowing, nothing more.
    pub(crate) fn remark(&mut self, name: &str, why: &str) {
        if let Some(field) = self.take(name) {
            self.say_of(&field, Severity::Info, why);
        }
    }

    /// The same for a field that somebody acts on who has nothing to do with traffic.
    pub(crate) fn remarked<T>(
        &mut self,
        name: &str,
        why: &str,
        decode: impl FnOnce(Cursor<'d>) -> Option<T>,
    ) -> Option<T> {
        let field = self.take(name)?;
        self.say_of(&field, Severity::Info, why);
        decode(field)
    }

    /// The same for a map.
    pub(crate) fn remarked_map<T>(
        &mut self,
        name: &str,
        why: &str,
        decode: impl Fn(Cursor<'d>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let entries = self.remarked(name, why, |field| field.entries());
        let Some(entries) = entries else { return BTreeMap::new() };
        entries.filter_map(|(key, value)| Some((key.to_owned(), decode(value)?))).collect()
    }

    fn say_of(&self, field: &Cursor<'d>, severity: Severity, why: &str) {
        let diagnostic =
            Diagnostic { severity, ..Diagnostic::error(codes::UNSUPPORTED_FIELD, field.source(), why) }
                .about(self.here.context.object.clone())
                .refusing(Refused::Field);
        self.here.context.found.borrow_mut().push(diagnostic);
    }

    /// A field that is known to be there: taken without a word.
    pub(crate) fn ignore(&mut self, name: &str) {
        let _ = self.take(name);
    }

    /// Decodes all remaining fields in a frame of their own.
    pub(crate) fn rest_as_rule<T>(&mut self, decode: impl FnOnce(&mut Fields<'d>) -> Option<T>) -> Rule<T> {
        let frame = Frame::inside(&self.here.frame, Refused::Rule);
        let here = self.here.clone().in_frame(&frame);
        let mut rest = Fields { here, left: std::mem::take(&mut self.left) };
        let value = decode(&mut rest);
        rest.finish(value.is_some());
        rest.here.conclude(value)
    }

    /// Decodes some of the fields in a frame of their own.
    pub(crate) fn only_as_rule<T>(
        &mut self,
        names: &[&str],
        decode: impl FnOnce(&mut Fields<'d>) -> Option<T>,
    ) -> Rule<T> {
        let (chosen, others) = self.left.drain(..).partition(|entry| names.contains(&entry.key.as_str()));
        self.left = chosen;
        let rule = self.rest_as_rule(decode);
        self.left = others;
        rule
    }

    /// At most one of these may be set.
    pub(crate) fn at_most_one(&self, names: &[&str]) {
        let set: Vec<_> =
            names.iter().filter(|name| self.has(name)).map(|name| format!("`{name}`")).collect();
        if set.len() > 1 {
            self.here.refuse(
                codes::CONFLICTING_FIELDS,
                format!("{} exclude each other", set.join(" and ")),
                None,
            );
        }
    }

    /// Reports what nobody took. After a failure only the misspelt fields are: the others may have been about to be taken.
    fn finish(&self, complete: bool) {
        let here = &self.here;
        let parent = here.path(true);
        for entry in &self.left {
            let known = schema::field(here.context.schema, &join(&parent, &entry.key));
            let at = here.source_at(entry.key_at, &join(&here.path(false), &entry.key));
            match known {
                Some(field) if complete => {
                    let message = if field.experimental {
                        "this field of the experimental channel is not supported by this release"
                    } else {
                        "this field is not supported by this release"
                    };
                    self.refuse_left(Diagnostic::error(codes::UNSUPPORTED_FIELD, at, message));
                }
                Some(_) => {}
                None => {
                    let mut diagnostic = Diagnostic::error(codes::UNKNOWN_FIELD, at, "unknown field");
                    diagnostic.expected = here.suggest(&parent, &entry.key);
                    self.refuse_left(diagnostic);
                }
            }
        }
    }

    fn refuse_left(&self, diagnostic: Diagnostic) {
        let scope = self.here.frame.scope;
        if scope == Refused::Field {
            self.here.frame.mark(scope, &Arc::new(diagnostic.clone()));
        }
        self.here.report(scope, diagnostic);
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

/// Keeps the place of a value.
pub(crate) fn spanned<'d, T>(
    decode: impl Fn(Cursor<'d>) -> Option<T>,
) -> impl Fn(Cursor<'d>) -> Option<Spanned<T>> {
    move |cursor| {
        let at = cursor.source();
        Some(Spanned { value: decode(cursor)?, at })
    }
}
