//! What an API server did not do, and why.

use std::{error::Error as _, time::Duration};

use thiserror::Error;

use crate::object::Named;

/// What went wrong with one object.
#[derive(Debug, Error)]
pub enum Problem {
    /// The user may not.
    #[error("{object}: forbidden to {verb} {resource}: {said}")]
    Forbidden {
        /// Kind, namespace and name.
        object: String,
        /// The verb that the user lacks.
        verb: &'static str,
        /// The resource, as roles name it.
        resource: String,
        /// The API server's words.
        said: String,
    },
    /// Another manager has set a field otherwise.
    #[error("{object}: {said} (--force-conflicts takes the fields over)")]
    Conflict {
        /// Kind, namespace and name.
        object: String,
        /// The API server's words, which name the manager and the fields.
        said: String,
    },
    /// The API server does not take it.
    #[error("{object}: the API server refuses to {verb} it: {said} ({code})")]
    Refused {
        /// Kind, namespace and name.
        object: String,
        /// What was asked.
        verb: &'static str,
        /// The API server's words.
        said: String,
        /// The HTTP status.
        code: u16,
    },
    /// The API server cannot be asked.
    #[error("{object}: the API server cannot be reached: {why}")]
    Unreachable {
        /// Kind, namespace and name.
        object: String,
        /// What happened.
        why: String,
    },
    /// It did not become what it should in time.
    #[error("{object} is not ready after {} s: {state}", waited.as_secs())]
    Late {
        /// Kind, namespace and name.
        object: String,
        /// How long it was waited for.
        waited: Duration,
        /// How far it is, and what is in the way.
        state: String,
    },
}

impl Problem {
    /// Whether nobody answered, so that nothing is known of the cluster.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// What an error means for an object.
    pub(crate) fn of(named: &Named, verb: &'static str, error: &kube::Error) -> Self {
        let object = named.to_string();
        let kube::Error::Api(status) = error else {
            return Self::Unreachable { object, why: chain(error) };
        };
        let said = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
        match status.code {
            403 => Self::Forbidden { object, verb, resource: named.resource(), said },
            409 if verb == "patch" => Self::Conflict { object, said },
            code => Self::Refused { object, verb, said, code },
        }
    }
}

/// An error with its causes, none of them twice.
pub(crate) fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Whether the API server answered with this status.
pub(crate) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
