//! Stand-in applications: for each replica of a Deployment, something that answers on its ports and calls the services
//! that its environment names.
//!
//! Many hundreds live in one process: a stand-in is a few tasks, and costs a few KiB while nothing asks it anything.
//!
//! # What it answers over HTTP (HTTP/1.1, and HTTP/2 with prior knowledge, on one port)
//!
//! | path | answer |
//! | --- | --- |
//! | `/health` and below, `/healthz`, `/_healthz`, `/livez`, `/ready`, `/readyz` | 200, `ok` |
//! | `/echo` | the request's body as it comes, then the trailer `x-echoed-bytes` |
//! | `/ws`, or any WebSocket upgrade | a WebSocket that echoes messages |
//! | `/stream?count=10&bytes=100&interval=10ms` | so many chunks |
//! | `/trailers` | a body and the trailers `x-trailer` and `x-pod` |
//! | `/leno/counters` | the counters, as JSON |
//! | anything else | JSON: who answered, what it saw, and what became of the calls it made |
//!
//! A request may steer its answer by header or query parameter of these names; they are not handed on:
//! `x-leno-status: 503`, `x-leno-delay: 100ms` (at most a minute), `x-leno-body-bytes: 100000` (padding, at most 64 MiB),
//! `x-leno-calls: none`, and `x-leno-echo: true` (the JSON shows method, URI, all headers, and up to 64 KiB of the body).
//! Trailers have other names than `x-leno-`, which proxies keep for themselves and drop from trailers.
//! `x-leno-hops` is how many further hops the request may take; without it 8, so that cycles end.
//! Trace headers, `end-user`, `user-agent`, `authorization` and `cookie` go with the calls.
//!
//! # gRPC, on the same port
//!
//! `grpc.health.v1.Health`, `leno.standin.v1.Echo` and server reflection; other services are UNIMPLEMENTED.
//! A stand-in calls a gRPC target with `Echo/Unary`, and the callee calls its own targets likewise.
//!
//! # TCP
//!
//! An echo, or an echo that first sends a banner.
//!
//! ```text
//!   behaviour      the optional file         calls          calls to others        counters
//!   dial           names and proxies         client         pooled HTTP            trace_headers
//!   respond        answers over HTTP         graph          the calls of a request, and what they become
//!   grpc           answers over gRPC         tcp, websocket echoes        notes          what it received, in a file
//!   serve          listeners, connections, graceful stop    proto          generated
//! ```
//!
//! Invariant: whatever a peer sends or a callee does, a stand-in lives, within bounds.
//! Must not know: proxies, control planes, manifests.

pub mod behaviour;
pub mod calls;
pub mod client;
pub mod counters;
pub mod dial;
mod graph;
mod grpc;
mod notes;
pub mod proto;
mod respond;
mod serve;
mod tcp;
#[cfg(test)]
mod tests;
pub mod trace_headers;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use behaviour::{Behaviour, BehaviourFile};
pub use calls::{CallProtocol, CallSpec};
pub use counters::Counters;
pub use dial::{ClusterNames, Dialer, Resolver};
pub(crate) use grpc::frame;
pub use serve::{Running, StandInError, Stopped};

/// One replica's stand-in.
#[derive(Clone, Debug, Default)]
pub struct StandInSpec {
    /// The replica's name, as `reviews-v2-0`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its `app` label.
    pub app: String,
    /// Its `version` label.
    pub version: String,
    /// Where it listens.
    pub listeners: Vec<ListenSpec>,
    /// What it calls for each request.
    pub calls: Vec<CallSpec>,
    /// What a file says about it.
    pub behaviour: Behaviour,
    /// A file that gets a line with the method and the `request-number` of each request that has one, when it is received.
    pub notes: Option<PathBuf>,
}

/// One port.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    /// The address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// The port's name, for its users.
    pub port_name: String,
    /// What it speaks.
    pub protocol: StandInProtocol,
}

/// What a port speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StandInProtocol {
    /// HTTP/1.1, HTTP/2 with prior knowledge, and gRPC.
    #[default]
    Auto,
    /// A TCP echo.
    Tcp,
    /// A TCP echo that first sends this.
    TcpServerFirst(String),
}

/// A stand-in application.
#[derive(Clone, Copy, Debug)]
pub struct StandIn;

impl StandIn {
    /// Binds the ports and serves them on the current runtime.
    ///
    /// # Errors
    /// When an address cannot be bound.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(spec: StandInSpec, dialer: Dialer) -> Result<Running, StandInError> {
        serve::start(spec, dialer)
    }
}
