//! What is wrong with an object, where, and what happens because of it.
//!
//! Invariant: a diagnostic names a place (file, line, column, field) and its effect, so that nobody has to guess what was
//! dropped. `compile` (LN1xxx) and `analyze` (LN2xxx) use the same type.
//! Must not know: which kinds exist, how they are decoded.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something is not in effect; what remains is true.
    Warning,
    /// Something that was asked for is withheld.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// The smallest part that is withheld so that the rest stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Refused {
    /// The field is dropped: the rest means what it says without it.
    Field,
    /// The rule, match, backend, subset or server that holds the field is withheld.
    Rule,
    /// The whole object is withheld.
    Object,
}

/// Names an object of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    /// API group; empty for the Kubernetes core group.
    pub group: Arc<str>,
    /// Kind as written, such as `VirtualService`.
    pub kind: Arc<str>,
    /// Namespace; absent for kinds that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// Name; empty when the object does not say.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {}/{}", self.kind, namespace, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A place in the user's YAML.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Source {
    /// File (or `cluster NAME` for an object that came from an API server).
    pub file: Arc<str>,
    /// Line, from 1; 0 when the object has no text.
    pub line: u32,
    /// Column in characters, from 1; 0 when the object has no text.
    pub column: u32,
    /// Path of the field, such as `spec.http[0].retries`; empty for the whole object.
    pub field: Arc<str>,
}

impl Source {
    /// A place without a position, for objects and tests that have no text.
    #[must_use]
    pub fn whole(file: &str) -> Self {
        Self { file: file.into(), line: 0, column: 0, field: "".into() }
    }

    /// The same place, said about a field (used when a default, which has no text, is at fault).
    #[must_use]
    pub fn with_field(&self, field: &str) -> Self {
        Self { field: field.into(), ..self.clone() }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}", self.file)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// A value and the place it was written at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub at: Source,
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// One finding about one place of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code, such as `LN0102`; `codes` explains each.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object, when the text got far enough to name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// Where.
    pub at: Source,
    /// What is wrong, in the words of the API.
    pub message: String,
    /// What would have been accepted, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What is withheld because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Refused>,
}

impl Diagnostic {
    /// An error about a place; `about`, `expecting` and `refusing` add the rest.
    #[must_use]
    pub fn error(code: &'static str, at: Source, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            object: None,
            at,
            message: message.into(),
            expected: None,
            effect: None,
        }
    }

    /// A warning about a place.
    #[must_use]
    pub fn warning(code: &'static str, at: Source, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, at, message) }
    }

    /// A remark about a place.
    #[must_use]
    pub fn info(code: &'static str, at: Source, message: impl Into<String>) -> Self {
        Self { severity: Severity::Info, ..Self::error(code, at, message) }
    }

    /// Says which object it is about.
    #[must_use]
    pub fn about(mut self, object: ObjectRef) -> Self {
        self.object = Some(object);
        self
    }

    /// Says what would have been accepted.
    #[must_use]
    pub fn expecting(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Says what is withheld.
    #[must_use]
    pub fn refusing(mut self, effect: Refused) -> Self {
        self.effect = Some(effect);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[{}]: ", self.at, self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.at.field.is_empty() {
            write!(f, "{}: ", self.at.field)?;
        }
        f.write_str(&self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; {expected}")?;
        }
        Ok(())
    }
}

/// A part of an object that either can be honoured or is withheld: never silently missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule<T> {
    /// Decoded in full: every field of it was understood.
    Ok(T),
    /// Withheld, with the first reason (all reasons are among the diagnostics of the parse).
    Refused(Arc<Diagnostic>),
}

impl<T> Rule<T> {
    /// The decoded part.
    pub fn ok(&self) -> Option<&T> {
        match self {
            Self::Ok(value) => Some(value),
            Self::Refused(_) => None,
        }
    }

    /// Why it is withheld.
    pub fn refusal(&self) -> Option<&Arc<Diagnostic>> {
        match self {
            Self::Ok(_) => None,
            Self::Refused(because) => Some(because),
        }
    }

    /// As `Result`, for `?`.
    ///
    /// # Errors
    /// The reason why it is withheld.
    pub fn as_result(&self) -> Result<&T, &Arc<Diagnostic>> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Refused(because) => Err(because),
        }
    }
}
