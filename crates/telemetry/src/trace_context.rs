//! W3C trace context and request ids.
//!
//! Invariant: a valid incoming `traceparent` is kept, its sampling decision too; an invalid one starts a new trace
//! (Trace Context, section 3.2.2.3) and takes its `tracestate` with it.
//! Must not know: clocks or random sources. Randomness is an argument.

use std::fmt;

/// A trace's id: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// A span's id: 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

/// The span of one request on one hop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// This span.
    pub span: SpanId,
    /// The span that called; `None` at the root.
    pub parent: Option<SpanId>,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// A parsed `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// Whether the caller recorded it.
    pub sampled: bool,
}

/// The length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// Most bytes of `tracestate` that are passed on (the specification asks for at least 512).
const MOST_TRACESTATE_BYTES: usize = 4096;

impl TraceParent {
    /// Parses a `traceparent`: version 00 exactly, later ones by their first four fields.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() < TRACEPARENT_BYTES || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
            return None;
        }
        let [version] = from_hex::<1>(&value[..2])?;
        let longer_is_allowed = version != 0 && value.get(TRACEPARENT_BYTES) == Some(&b'-');
        if version == 0xff || (value.len() > TRACEPARENT_BYTES && !longer_is_allowed) {
            return None;
        }
        let [flags] = from_hex::<1>(&value[53..55])?;
        Some(Self {
            trace: TraceId::new(from_hex(&value[3..35])?)?,
            span: SpanId::new(from_hex(&value[36..52])?)?,
            sampled: flags & 1 == 1,
        })
    }
}

impl SpanContext {
    /// A new span below `parent`, or a new trace sampled at `rate` (0 to 1) when there is none.
    ///
    /// `random` must be fresh for each call.
    pub fn begin(parent: Option<TraceParent>, rate: f64, random: [u8; 32]) -> Self {
        let (trace, span, dice) = (first(&random[..16]), first(&random[16..24]), first(&random[24..]));
        let span = SpanId::new(span).unwrap_or(SpanId([1; 8]));
        match parent {
            Some(parent) => {
                Self { trace: parent.trace, span, parent: Some(parent.span), sampled: parent.sampled }
            }
            None => Self {
                trace: TraceId::new(trace).unwrap_or(TraceId([1; 16])),
                span,
                parent: None,
                sampled: is_sampled(rate, u64::from_be_bytes(dice)),
            },
        }
    }

    /// The `traceparent` for the next hop.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Whether a `tracestate` may be passed on: list members `key=value`, 32 at most, no key twice.
pub fn is_valid_tracestate(value: &[u8]) -> bool {
    if value.len() > MOST_TRACESTATE_BYTES {
        return false;
    }
    let mut keys: Vec<&[u8]> = Vec::new();
    for member in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if member.is_empty() {
            continue;
        }
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
        let (key, rest) = (&member[..equals], &member[equals + 1..]);
        if !is_key(key) || !is_value(rest) || keys.contains(&key) || keys.len() == 32 {
            return false;
        }
        keys.push(key);
    }
    true
}

/// A version 4 UUID from random bytes, for `x-request-id`.
pub fn request_id(mut random: [u8; 16]) -> String {
    random[6] = (random[6] & 0x0f) | 0x40;
    random[8] = (random[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in random.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        push_hex(&mut text, *byte);
    }
    text
}

impl TraceId {
    /// An id from bytes that are not all zero.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    /// An id from bytes that are not all zero.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

fn is_sampled(rate: f64, dice: u64) -> bool {
    // 53 bits are exact in an f64, so a rate of 1 is always above and a rate of 0 never.
    #[allow(clippy::cast_precision_loss)]
    let roll = (dice >> 11) as f64 / (1_u64 << 53) as f64;
    roll < rate
}

/// Trace Context 3.3.1.3.1: `simple-key` or `tenant@system`.
fn is_key(key: &[u8]) -> bool {
    let tail = |part: &[u8]| {
        part.iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/'))
    };
    let starts = |part: &[u8], digit: bool| {
        part.first().is_some_and(|b| b.is_ascii_lowercase() || (digit && b.is_ascii_digit())) && tail(part)
    };
    match key.iter().position(|b| *b == b'@') {
        None => key.len() <= 256 && starts(key, false),
        Some(at) => {
            let (tenant, system) = (&key[..at], &key[at + 1..]);
            tenant.len() <= 241 && system.len() <= 14 && starts(tenant, true) && starts(system, false)
        }
    }
}

/// Trace Context 3.3.1.3.2: 1 to 256 printable characters without `,` and `=`.
fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.iter().all(|b| (0x20..=0x7e).contains(b) && !matches!(b, b',' | b'='))
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// Lower-case hexadecimal only, as the specification wants.
fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != N * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn push_hex(text: &mut String, byte: u8) {
    for nibble in [byte >> 4, byte & 0x0f] {
        text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests;
