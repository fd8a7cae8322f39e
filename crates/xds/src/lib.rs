//! The delta discovery protocol, client and server, as state machines, plus a thin tonic transport.
//!
//! ```text
//!   resource   names, versions, encoded bytes, who a client is      (both sides)
//!   catalog    what a publisher offers and how it tells changes     (server side)
//!   server     ServerSession: one stream seen from the publisher    no I/O, no clock
//!   client     ClientState: one subscriber, across its streams      no I/O, no clock, no randomness
//!   transport  both over tonic: Publisher, serve, client::run
//!   proto      generated from proto/leno/{discovery,identity,replicas}
//! ```
//!
//! Invariants: a client's state changes by whole generations only; what cannot be read never replaces what could;
//! at most one generation is in flight on a stream; the bytes of a resource are encoded once for all streams.
//! Must not know: what a payload means, how scopes are spelled, TLS.

mod catalog;
pub mod client;
mod limits;
pub mod proto;
mod resource;
pub mod server;
#[cfg(test)]
mod test_world;
pub mod transport;

pub use catalog::{Affected, Catalog, Change};
pub use limits::Limits;
pub use resource::{EncodedResource, NodeInfo, ResourceKey, Version};
