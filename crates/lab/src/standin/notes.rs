//! Notes of what a stand-in has received, in a file that outlives it.
//!
//! Invariant: a request is in the file before anything is done with it, so that after a SIGKILL one knows what was received.
//! Must not know: who numbers requests, and who reads the notes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use http::{HeaderMap, Method};

/// The header with a request's number.
const NUMBER: &str = "request-number";

pub(super) struct Notes(Option<File>);

impl Notes {
    /// Notes in a file, behind those that are there; without a file, none.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().append(true).create(true).open(path);
        Ok(Self(path.map(open).transpose()?))
    }

    /// Notes a request, if it has a number; one short write to the page cache.
    pub(super) fn received(&self, method: &Method, headers: &HeaderMap) {
        let number = headers.get(NUMBER).and_then(|number| number.to_str().ok());
        if let (Some(mut file), Some(number)) = (self.0.as_ref(), number)
            && let Err(error) = file.write_all(format!("{method} {number}\n").as_bytes())
        {
            tracing::warn!(%error, "a request cannot be noted");
        }
    }
}
