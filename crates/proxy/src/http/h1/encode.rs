//! Writes heads and frames bodies.
//!
//! Invariant: the fields that frame a message (`Content-Length`, `Transfer-Encoding`, `Connection`) are written from what
//! the codec decided and never copied from the message.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use http_body::Frame;

use super::pipe::Outgoing;

/// How a body that we send ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendFraming {
    /// There is no body, whatever the fields say (HEAD, 204, 304, GET without content).
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the `Connection` field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionField {
    Absent,
    Close,
    KeepAlive,
    Upgrade,
}

/// The body did not keep to its announced length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LengthMismatch;

pub(super) fn response_head(
    buf: &mut BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    framing: SendFraming,
    connection: ConnectionField,
) {
    buf.put_slice(b"HTTP/1.1 ");
    buf.put_slice(status.as_str().as_bytes());
    buf.put_u8(b' ');
    buf.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    buf.put_slice(b"\r\n");
    // A length without a body belongs to HEAD and 304; RFC 9110 8.6 forbids it in 1xx, 204 and 2xx to CONNECT.
    let may_announce = framing == SendFraming::None
        && connection != ConnectionField::Upgrade
        && status != StatusCode::NO_CONTENT;
    fields(buf, headers, framing, connection, may_announce);
}

pub(super) fn request_head(
    buf: &mut BytesMut,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    framing: SendFraming,
    connection: ConnectionField,
) {
    buf.put_slice(method.as_str().as_bytes());
    buf.put_u8(b' ');
    match (method == Method::CONNECT, uri.authority(), uri.path_and_query()) {
        (true, Some(authority), _) => buf.put_slice(authority.as_str().as_bytes()),
        (_, _, Some(path)) => buf.put_slice(path.as_str().as_bytes()),
        (_, _, None) => buf.put_u8(b'/'),
    }
    buf.put_slice(b" HTTP/1.1\r\n");
    fields(buf, headers, framing, connection, false);
}

/// `may_announce`: the message's own `Content-Length` says what a body would have been.
fn fields(
    buf: &mut BytesMut,
    headers: &HeaderMap,
    framing: SendFraming,
    connection: ConnectionField,
    may_announce: bool,
) {
    let mut te_trailers = false;
    for (name, value) in headers {
        if is_framing(name)
            || (name == CONTENT_LENGTH && !may_announce)
            || (name == UPGRADE && connection != ConnectionField::Upgrade)
        {
            continue;
        }
        te_trailers |= name == TE;
        field(buf, name.as_str().as_bytes(), value.as_bytes());
    }
    match framing {
        SendFraming::None | SendFraming::UntilClose => {}
        SendFraming::Length(n) => {
            field(buf, b"content-length", itoa::Buffer::new().format(n).as_bytes());
        }
        SendFraming::Chunked => field(buf, b"transfer-encoding", b"chunked"),
    }
    match (connection, te_trailers) {
        (ConnectionField::Absent, false) => {}
        (ConnectionField::Absent, true) => field(buf, b"connection", b"te"),
        (ConnectionField::Close, _) => field(buf, b"connection", b"close"),
        (ConnectionField::KeepAlive, _) => field(buf, b"connection", b"keep-alive"),
        (ConnectionField::Upgrade, _) => field(buf, b"connection", b"upgrade"),
    }
    buf.put_slice(b"\r\n");
}

fn is_framing(name: &HeaderName) -> bool {
    name == CONNECTION
        || name == TRANSFER_ENCODING
        || name.as_str() == "keep-alive"
        || name.as_str() == "proxy-connection"
}

fn field(buf: &mut BytesMut, name: &[u8], value: &[u8]) {
    buf.reserve(name.len() + value.len() + 4);
    buf.put_slice(name);
    buf.put_slice(b": ");
    buf.put_slice(value);
    buf.put_slice(b"\r\n");
}

/// Frames a body into what waits to be written.
#[derive(Debug)]
pub(super) struct Encoder {
    framing: SendFraming,
    finished: bool,
}

impl Encoder {
    pub(super) fn new(framing: SendFraming) -> Self {
        Encoder { framing, finished: matches!(framing, SendFraming::None | SendFraming::Length(0)) }
    }

    /// The whole body was encoded; nothing more is asked of it.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn frame(&mut self, frame: Frame<Bytes>, out: &mut Outgoing) -> Result<(), LengthMismatch> {
        match frame.into_data() {
            Ok(data) => self.data(data, out),
            Err(frame) => {
                if let (SendFraming::Chunked, Ok(trailers)) = (self.framing, frame.into_trailers()) {
                    trailer_section(&trailers, out);
                    self.finished = true;
                }
                Ok(())
            }
        }
    }

    fn data(&mut self, data: Bytes, out: &mut Outgoing) -> Result<(), LengthMismatch> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            SendFraming::None => {}
            SendFraming::UntilClose => out.push(data),
            SendFraming::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(LengthMismatch)?;
                self.finished = *left == 0;
                out.push(data);
            }
            SendFraming::Chunked => {
                chunk_size(data.len(), out.flat());
                out.push(data);
                out.flat().put_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// The body has ended.
    pub(super) fn end(&mut self, out: &mut Outgoing) -> Result<(), LengthMismatch> {
        if self.finished {
            return Ok(());
        }
        self.finished = true;
        match self.framing {
            SendFraming::Length(left) if left > 0 => Err(LengthMismatch),
            SendFraming::Chunked => {
                out.flat().put_slice(b"0\r\n\r\n");
                Ok(())
            }
            SendFraming::Length(_) | SendFraming::None | SendFraming::UntilClose => Ok(()),
        }
    }
}

fn trailer_section(trailers: &HeaderMap, out: &mut Outgoing) {
    let buf = out.flat();
    buf.put_slice(b"0\r\n");
    for (name, value) in trailers {
        if crate::http::hop::is_allowed_in_trailers(name) {
            field(buf, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    buf.put_slice(b"\r\n");
}

fn chunk_size(size: usize, buf: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        buf.put_u8(DIGITS[(size >> (place * 4)) & 0xf]);
    }
    buf.put_slice(b"\r\n");
}
