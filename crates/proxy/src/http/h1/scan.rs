//! Finds the end of a head (or of a trailer section) without parsing it, whatever pieces it arrives in.
//!
//! Invariant: each byte is looked at once, however many reads it took; lines end in CRLF and nothing else, so that no two
//! parsers can disagree about where a head ends.

use memchr::memchr;

use crate::http::settings::HeadLimits;

/// Why a head was refused, and the status that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct HeadError {
    /// The status code to answer with.
    pub status: u16,
    /// What is wrong.
    pub reason: &'static str,
}

pub(super) const fn bad(reason: &'static str) -> HeadError {
    HeadError { status: 400, reason }
}

pub(super) const TOO_MANY_HEADERS: HeadError = HeadError { status: 431, reason: "too many header fields" };
pub(super) const HEAD_TOO_LARGE: HeadError = HeadError { status: 431, reason: "the head is too large" };
pub(super) const URI_TOO_LONG: HeadError =
    HeadError { status: 414, reason: "the request target is too long" };

/// Room for the method and version around a request target.
const AROUND_URI: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Scanner {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

impl Scanner {
    /// For a section without a first line: trailers.
    pub(super) fn without_first_line() -> Self {
        Scanner { scanned: 0, line_start: 0, lines: 1 }
    }

    /// The length of the head including its empty line, once it is complete in `buf`.
    pub(super) fn scan(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
        while let Some(at) = memchr(b'\n', &buf[self.scanned..]) {
            let lf = self.scanned + at;
            self.scanned = lf + 1;
            if lf == self.line_start || buf[lf - 1] != b'\r' {
                return Err(bad("a line ends in a bare LF"));
            }
            let line = &buf[self.line_start..lf - 1];
            if memchr(b'\r', line).is_some() {
                return Err(bad("a bare CR"));
            }
            if line.is_empty() {
                return if lf + 1 > limits.max_head_bytes { Err(HEAD_TOO_LARGE) } else { Ok(Some(lf + 1)) };
            }
            if self.lines == 0 && line.len() > limits.max_uri_bytes + AROUND_URI {
                return Err(URI_TOO_LONG);
            }
            self.lines += 1;
            if self.lines > limits.max_headers + 1 {
                return Err(TOO_MANY_HEADERS);
            }
            self.line_start = lf + 1;
        }
        self.scanned = buf.len();
        if self.lines == 0 && buf.len() - self.line_start > limits.max_uri_bytes + AROUND_URI {
            return Err(URI_TOO_LONG);
        }
        if buf.len() > limits.max_head_bytes { Err(HEAD_TOO_LARGE) } else { Ok(None) }
    }
}
