//! Takes a body out of the bytes of a connection, following the framing that the head declared.
//!
//! Invariant: what comes out does not depend on how the bytes were cut into reads; no byte behind the body is consumed.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use memchr::memchr;

use super::parse::{BodyFraming, header_map};
use super::scan::Scanner;
use crate::http::body::BodyError;
use crate::http::hop;
use crate::http::settings::HeadLimits;

/// A chunk's size line with its extensions.
const MAX_CHUNK_LINE: usize = 272;
/// All chunk extensions of a body together; nobody needs them, and they cost without carrying data.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
const TRAILER_LIMITS: HeadLimits =
    HeadLimits { max_headers: 64, max_head_bytes: 16 * 1024, max_uri_bytes: 16 * 1024 };

#[derive(Debug)]
pub(super) enum Decoded {
    /// More bytes are needed.
    NeedMore,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

#[derive(Debug)]
pub(super) enum Decoder {
    Done,
    Length(u64),
    UntilClose,
    Chunked(Chunked),
}

#[derive(Debug)]
pub(super) struct Chunked {
    state: ChunkState,
    extension_bytes: usize,
}

#[derive(Debug)]
enum ChunkState {
    Size,
    Data(u64),
    DataEnd,
    Trailers(Scanner),
}

impl From<BodyFraming> for Decoder {
    fn from(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => Decoder::Done,
            BodyFraming::Length(n) => Decoder::Length(n),
            BodyFraming::UntilClose => Decoder::UntilClose,
            BodyFraming::Chunked => Decoder::Chunked(Chunked { state: ChunkState::Size, extension_bytes: 0 }),
        }
    }
}

impl Decoder {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    /// How many bytes are still to come, when that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Decoder::Done => Some(0),
            Decoder::Length(n) => Some(*n),
            Decoder::UntilClose | Decoder::Chunked(_) => None,
        }
    }

    /// The whole body, when its length is known and all of it is in `buf`.
    pub(super) fn take_complete(&mut self, buf: &mut BytesMut) -> Option<Bytes> {
        let Decoder::Length(n) = *self else { return None };
        let n = usize::try_from(n).ok().filter(|n| *n <= buf.len())?;
        *self = Decoder::Done;
        Some(buf.split_to(n).freeze())
    }

    /// Takes the next piece from `buf`; `eof` says that nothing comes behind it.
    pub(super) fn decode(&mut self, buf: &mut BytesMut, eof: bool) -> Result<Decoded, BodyError> {
        let decoded = match self {
            Decoder::Done => return Ok(Decoded::End),
            Decoder::Length(left) => match take_data(buf, left) {
                Some(data) => {
                    if *left == 0 {
                        *self = Decoder::Done;
                    }
                    return Ok(Decoded::Data(data));
                }
                None => Decoded::NeedMore,
            },
            Decoder::UntilClose if !buf.is_empty() => return Ok(Decoded::Data(buf.split().freeze())),
            Decoder::UntilClose if eof => {
                *self = Decoder::Done;
                return Ok(Decoded::End);
            }
            Decoder::UntilClose => Decoded::NeedMore,
            Decoder::Chunked(chunked) => chunked.decode(buf)?,
        };
        match decoded {
            Decoded::NeedMore if eof => Err(BodyError::Incomplete),
            Decoded::NeedMore | Decoded::Data(_) => Ok(decoded),
            Decoded::Trailers(_) | Decoded::End => {
                *self = Decoder::Done;
                Ok(decoded)
            }
        }
    }
}

fn take_data(buf: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    if buf.is_empty() {
        return None;
    }
    let n = usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len()));
    *left -= n as u64;
    Some(buf.split_to(n).freeze())
}

impl Chunked {
    fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            match &mut self.state {
                ChunkState::Size => {
                    let window = &buf[..buf.len().min(MAX_CHUNK_LINE)];
                    let Some(lf) = memchr(b'\n', window) else {
                        return if window.len() == MAX_CHUNK_LINE {
                            Err(BodyError::Malformed("a chunk's size line is too long"))
                        } else {
                            Ok(Decoded::NeedMore)
                        };
                    };
                    let line = buf.split_to(lf + 1);
                    let (size, extension) = parse_size_line(&line[..lf])?;
                    self.extension_bytes += extension;
                    if self.extension_bytes > MAX_EXTENSION_BYTES {
                        return Err(BodyError::Malformed("too many chunk extensions"));
                    }
                    self.state = match size {
                        0 => ChunkState::Trailers(Scanner::without_first_line()),
                        size => ChunkState::Data(size),
                    };
                }
                ChunkState::Data(left) => {
                    let Some(data) = take_data(buf, left) else { return Ok(Decoded::NeedMore) };
                    if *left == 0 {
                        self.state = ChunkState::DataEnd;
                    }
                    return Ok(Decoded::Data(data));
                }
                ChunkState::DataEnd => match buf.get(..2) {
                    Some(b"\r\n") => {
                        let _ = buf.split_to(2);
                        self.state = ChunkState::Size;
                    }
                    None if buf.is_empty() || buf[0] == b'\r' => return Ok(Decoded::NeedMore),
                    _ => return Err(BodyError::Malformed("a chunk is longer than its size")),
                },
                ChunkState::Trailers(scanner) => {
                    let end = scanner
                        .scan(buf, &TRAILER_LIMITS)
                        .map_err(|error| BodyError::Malformed(error.reason))?;
                    return match end {
                        None => Ok(Decoded::NeedMore),
                        Some(n) => parse_trailers(buf.split_to(n).freeze()),
                    };
                }
            }
        }
    }
}

/// `line` is without its LF. Returns the size and the length of the extensions.
fn parse_size_line(line: &[u8]) -> Result<(u64, usize), BodyError> {
    const WRONG: BodyError = BodyError::Malformed("a chunk's size is malformed");
    let line =
        line.strip_suffix(b"\r").ok_or(BodyError::Malformed("a chunk's size line ends in a bare LF"))?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(WRONG);
    }
    let size = line[..digits].iter().fold(0u64, |sum, b| (sum << 4) | u64::from(hex_value(*b)));
    let rest = &line[digits..];
    // RFC 9112 7.1.1: chunk-ext = *( BWS ";" ...); white space without an extension behind it is refused.
    let extension = rest.trim_ascii_start();
    if !rest.is_empty() && extension.first() != Some(&b';') {
        return Err(WRONG);
    }
    if rest.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
        return Err(BodyError::Malformed("a chunk extension has a control character"));
    }
    Ok((size, rest.len()))
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

fn parse_trailers(section: Bytes) -> Result<Decoded, BodyError> {
    if section.len() == 2 {
        return Ok(Decoded::End);
    }
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_LIMITS.max_headers];
    let wrong = BodyError::Malformed("the trailers are malformed");
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&section, &mut fields) else {
        return Err(wrong);
    };
    let mut trailers = header_map(&section, fields).map_err(|_| wrong)?;
    hop::keep_allowed_trailers(&mut trailers);
    Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
}
