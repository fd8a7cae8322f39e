//! Where in the user's YAML a thing comes from, so that explain, logs and denials can cite it.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// An object (and a field of it) that a user wrote.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The object's kind, such as `VirtualService`.
    pub kind: Arc<str>,
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The field, such as `spec.http[0].route[1]`; empty for the object as a whole.
    pub field: Arc<str>,
    /// `FILE:LINE` where it was read from a file; empty where it came from an API server.
    pub place: Arc<str>,
}

impl Origin {
    /// A thing that no object asked for: a default of the mesh. `rule` says which.
    pub fn built_in(rule: &str) -> Self {
        Self { kind: "default".into(), name: rule.into(), ..Self::default() }
    }

    /// The same object and place, another field.
    pub fn with_field(&self, field: impl Into<Arc<str>>) -> Self {
        Self { field: field.into(), ..self.clone() }
    }
}

impl fmt::Display for Origin {
    /// `VirtualService default/reviews spec.http[0] (reviews.yaml:12)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        if !self.place.is_empty() {
            write!(f, " ({})", self.place)?;
        }
        Ok(())
    }
}
