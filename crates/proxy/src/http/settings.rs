//! Every limit of the HTTP layer, with its default, and how a connection's end is reported.

use std::time::Duration;

use super::h1::HeadError;
use super::tunnel::TunnelLimits;

/// Bounds on a message's head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Header fields; 100, and never more than 128. More is 431.
    pub max_headers: usize,
    /// Bytes of the whole head; 60 KiB. More is 431.
    pub max_head_bytes: usize,
    /// Bytes of the request target; 16 KiB. More is 414.
    pub max_uri_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits { max_headers: 100, max_head_bytes: 60 * 1024, max_uri_bytes: 16 * 1024 }
    }
}

/// Limits of a server connection.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Bounds on a request's head.
    pub head: HeadLimits,
    /// From a head's first byte to its last; 30 s. Later is 408.
    pub head_timeout: Duration,
    /// A new connection must begin its first request within this; 60 s.
    pub first_request_timeout: Duration,
    /// An idle connection is kept for this; 1 h, so that the client's own timeout is the shorter one.
    pub keep_alive: Duration,
    /// In any such time that a body is waited for, or that written bytes wait for the client, `min_progress` must move; 5 min.
    pub body_idle: Duration,
    /// Bytes that must move in each `body_idle`; 1, so that a quiet stream ends and a slow one does not.
    pub min_progress: u64,
    /// How long the rest of an unread request body, or of a refused connection, is drained; 1 s.
    pub linger: Duration,
    /// How much of it; 64 KiB.
    pub linger_bytes: usize,
    /// Requests on one connection before it is closed; without limit.
    pub max_requests: Option<u64>,
    /// A client that closes only its sending half still gets its response; false: a close cancels the handler.
    pub allow_half_close: bool,
    /// Limits of a connection that was upgraded.
    pub tunnel: TunnelLimits,
    /// HTTP/2: concurrent streams; 1024.
    pub h2_max_streams: u32,
    /// HTTP/2: window of a stream; 1 MiB.
    pub h2_stream_window: u32,
    /// HTTP/2: window of the connection; 16 MiB. h2's budget for small DATA frames is half of it.
    pub h2_connection_window: u32,
    /// HTTP/2: bytes that h2 may hold for one stream's sending; 256 KiB.
    pub h2_send_buffer: usize,
    /// HTTP/2: streams reset by the client and not accepted yet, before the connection is closed; 256.
    pub h2_max_pending_resets: usize,
    /// HTTP/2: streams that the client takes back within a second of opening them, before the connection is closed, if they are
    /// also more than half of all (CVE-2023-44487: each costs us a request and the client nothing); without limit.
    pub h2_max_early_resets: Option<u64>,
    /// HTTP/2: send a ping when quiet for this long and close without an answer in as long; off.
    pub h2_ping: Option<Duration>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            head: HeadLimits::default(),
            head_timeout: Duration::from_secs(30),
            first_request_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(3600),
            body_idle: Duration::from_secs(300),
            min_progress: 1,
            linger: Duration::from_secs(1),
            linger_bytes: 64 * 1024,
            max_requests: None,
            allow_half_close: false,
            tunnel: TunnelLimits::default(),
            h2_max_streams: 1024,
            h2_stream_window: 1024 * 1024,
            h2_connection_window: 16 * 1024 * 1024,
            h2_send_buffer: 256 * 1024,
            h2_max_pending_resets: 256,
            h2_max_early_resets: None,
            h2_ping: None,
        }
    }
}

/// Limits of a client connection.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Bounds on a response's head.
    pub head: HeadLimits,
    /// Responses 1xx before the final one; 16.
    pub max_informational: u32,
    /// In any such time that a body is waited for, `min_progress` must arrive; 5 min. The time to the head is the caller's.
    pub body_idle: Duration,
    /// Bytes that must arrive in each `body_idle`; 1.
    pub min_progress: u64,
    /// HTTP/2: window of a stream; 1 MiB.
    pub h2_stream_window: u32,
    /// HTTP/2: window of the connection; 16 MiB.
    pub h2_connection_window: u32,
    /// HTTP/2: bytes that h2 may hold for one stream's sending; 256 KiB.
    pub h2_send_buffer: usize,
    /// HTTP/2: streams opened before the peer's settings are known; 100.
    pub h2_initial_streams: usize,
    /// HTTP/2: send a ping when quiet for this long and close without an answer in as long; off.
    pub h2_ping: Option<Duration>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings {
            head: HeadLimits::default(),
            max_informational: 16,
            body_idle: Duration::from_secs(300),
            min_progress: 1,
            h2_stream_window: 1024 * 1024,
            h2_connection_window: 16 * 1024 * 1024,
            h2_send_buffer: 256 * 1024,
            h2_initial_streams: 100,
            h2_ping: None,
        }
    }
}

/// Why a server connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The client closed it between requests.
    ClientClosed,
    /// The client closed it during an exchange.
    Disconnected,
    /// We closed it in good order: `connection: close`, the request limit, an unread body.
    Finished,
    /// The drain ended it.
    Drained,
    /// It was idle for too long.
    Idle,
    /// A head, a body or a write took too long.
    Timeout,
    /// A request was refused by the codec.
    Rejected(HeadError),
    /// The request's body was malformed.
    BadBody,
    /// The response's body failed, so that the connection could not go on.
    ResponseFailed,
    /// It was upgraded, and the tunnel ended.
    Tunnel,
    /// An HTTP/2 protocol error, or the client's GOAWAY with an error.
    Protocol,
}

/// What a server connection did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnEnd {
    /// Why it ended.
    pub reason: EndReason,
    /// Requests that reached the handler.
    pub requests: u64,
    /// Handlers that were dropped because the client went away.
    pub cancelled: u64,
    /// Bytes carried for the client after an upgrade: from it, to it.
    pub tunnelled: (u64, u64),
}

impl ConnEnd {
    pub(super) fn new(reason: EndReason) -> Self {
        ConnEnd { reason, requests: 0, cancelled: 0, tunnelled: (0, 0) }
    }
}
