//! Application protocols and mTLS modes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an application speaks on a port, as declared (`appProtocol`, port name prefix) or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Nothing was declared: the first bytes decide; silence means TCP after a short wait.
    #[default]
    Detect,
    /// HTTP/1.x, upgraded to nothing.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// Opaque bytes.
    Tcp,
    /// The application's own TLS: opaque, routed by SNI.
    Tls,
}

impl Protocol {
    /// Whether requests are seen (declared HTTP).
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }

    /// Whether the application must be spoken to in HTTP/2.
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detect => "detect",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// What a server accepts on a port (Istio PeerAuthentication `mtls.mode`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MtlsMode {
    /// Only mTLS from a mesh peer.
    Strict,
    /// mTLS and plaintext.
    #[default]
    Permissive,
    /// Plaintext only: peers are not asked for mTLS.
    Disable,
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        })
    }
}
