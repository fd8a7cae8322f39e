//! How a command ends when it does not succeed.

use std::process::ExitCode;

use crate::write;

/// Why a command did not succeed; each has its exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A check failed or a claim does not hold; all was said already. Code 1.
    DoesNotHold,
    /// A cluster does not do what was asked. Code 1.
    Refused(anyhow::Error),
    /// Wrong usage, or input that cannot be read. Code 2.
    Usage(anyhow::Error),
    /// The mesh, or a cluster, cannot be reached. Code 3.
    Unreachable(anyhow::Error),
    /// A program that `leno run` ran ended with this code.
    Program(u8),
}

impl Failure {
    /// Wraps an error about usage or input.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// Says it, and gives the exit code.
    pub(crate) fn tell(self) -> ExitCode {
        let (code, error) = match self {
            Self::DoesNotHold => return ExitCode::from(1),
            Self::Program(code) => return ExitCode::from(code),
            Self::Refused(error) => (1, error),
            Self::Usage(error) => (2, error),
            Self::Unreachable(error) => (3, error),
        };
        write::note(&format!("{error:#}"));
        ExitCode::from(code)
    }
}
