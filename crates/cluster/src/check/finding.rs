//! One line of a check.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something is less than it could be, or could not be looked at.
    Warn,
    /// Something does not work.
    Fail,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a word for programs.
    pub about: &'static str,
    /// What was found.
    pub text: String,
    /// What to do; every failure has it.
    pub advice: Option<String>,
}

impl Finding {
    pub(crate) fn ok(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, about, text: text.into(), advice: None }
    }

    pub(crate) fn warn(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warn, about, text: text.into(), advice: Some(advice.into()) }
    }

    pub(crate) fn fail(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Fail, about, text: text.into(), advice: Some(advice.into()) }
    }

    /// What could not be looked at.
    pub(crate) fn unseen(about: &'static str, what: &str, error: &kube::Error) -> Self {
        let why = match error {
            kube::Error::Api(status) => status.message.clone(),
            other => crate::problem::chain(other),
        };
        Self::warn(about, format!("{what} cannot be looked at: {why}"), "ask as a user who may read it")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4} {}", self.level.as_str(), self.text)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}
