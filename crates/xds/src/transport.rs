//! The state machines over tonic.
//!
//! ```text
//!   peer        an accepted connection with the identity its TLS proved; the Authorizer hook
//!   publisher   the newest catalog and the last changes, for every session
//!   session     one server stream: a task around a ServerSession
//!   sessions    how far every client is, and what was sent to all
//!   server      the tonic service, and `serve`
//!   channel     HTTP/2 over a connection that the caller dialled
//!   client      `run`: a ClientState through its streams; the Subscriber and Landings ends
//! ```
//!
//! Invariants: no loop ever waits to send only: it goes on receiving meanwhile, so two sides cannot block each other;
//! every wait has a deadline; every queue has a bound.
//! Must not know: TLS (connections come accepted or dialled), what payloads mean.

mod channel;
pub mod client;
mod peer;
mod publisher;
pub mod server;
mod session;
mod sessions;

pub use channel::channel;
pub use peer::{Authorizer, Peer, PeerStream, Unauthorized};
pub use publisher::Publisher;
pub use sessions::{Sent, Sessions};
