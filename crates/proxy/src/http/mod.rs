//! HTTP for the data plane: our own HTTP/1.1 codec (on `httparse`), HTTP/2 (on `h2`), and one [`Body`] that joins them.
//!
//! ```text
//!   serve_auto ── preface? ──► h2_server ─┐             ┌─► h1::H1Client
//!        └──────────────────► h1::server ─┴─► handler ──┴─► h2_client::H2Client
//!                                  Body ───── pulled by the task that polls it ─────► Body
//! ```
//!
//! Inside the proxy a request has one canonical form, whatever it came in as: its URI is origin-form (`/path?query`, `*`, or the
//! authority for CONNECT) and the `Host` header holds the authority. [`hop`] translates to and from that form for each version.
//!
//! Invariants: everything runs on one thread (`!Send`, no locks); a body is pulled by whoever polls it, never by a task of
//! its own; every buffer and every wait is bounded by [`ServerSettings`] or [`ClientSettings`]; what cannot be parsed without
//! doubt is refused and its connection closed, for it is framing that request smuggling lives on.
//!
//! Must not know: routes, policies, endpoints, TLS, telemetry.

mod auto;
mod body;
mod buffers;
mod drain;
mod h1;
mod h2_body;
mod h2_client;
mod h2_server;
pub mod hop;
pub use leno_decide::path;
mod send_error;
mod settings;
mod timer;
pub mod tunnel;

#[cfg(test)]
mod tests;

pub use auto::serve_auto;
pub use body::{Body, BodyError, BodyStream, BoxIo, Io, Upgraded};
pub use drain::{Drain, DrainTrigger};
pub use h1::{H1Client, HeadError, serve_h1};
pub use h2_client::{H2Client, H2Driver};
pub use h2_server::serve_h2;
pub use send_error::{Delivery, SendError, SendFailure};
pub use settings::{ClientSettings, ConnEnd, EndReason, HeadLimits, ServerSettings};
