//! The headers that an application hands on from a request to its own calls.
//!
//! Invariant: the hop count falls by one with each hand-over and never exceeds [`MAX_HOPS`], so every cycle ends.
//! Must not know: what the headers mean to a mesh.

use http::{HeaderMap, HeaderName, HeaderValue};

/// How many further hops a request may take.
pub const HOPS: &str = "x-leno-hops";
/// What a request may ask for at most.
pub const MAX_HOPS: u8 = 32;

const HANDED_ON: [&str; 16] = [
    "end-user",
    "user-agent",
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "baggage",
    "authorization",
    "cookie",
    "x-cloud-trace-context",
];

/// What a request's calls carry.
#[derive(Clone, Debug)]
pub struct Carried {
    headers: HeaderMap,
    hops: u8,
}

impl Carried {
    /// From the headers of a request; `limit` is for one without a hop count.
    #[must_use]
    pub fn from_request(headers: &HeaderMap, limit: u8) -> Self {
        let mut carried = HeaderMap::new();
        for name in HANDED_ON.map(HeaderName::from_static) {
            for value in headers.get_all(&name) {
                carried.append(name.clone(), value.clone());
            }
        }
        let written = headers.get(HOPS).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let hops = written.map_or(limit, |hops| u8::try_from(hops).unwrap_or(MAX_HOPS)).min(MAX_HOPS);
        Self { headers: carried, hops }
    }

    /// Whether a call may still be made.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        self.hops > 0
    }

    /// Writes them to a call's request.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        headers
            .insert(HeaderName::from_static(HOPS), HeaderValue::from(u16::from(self.hops.saturating_sub(1))));
    }
}
