//! HTTP/1.1: strict parsing, framing, and the server and client connections.
//!
//! Invariant: how a message ends is decided in [`parse`] and nowhere else; what it decides, `decode` follows byte by byte.

mod client;
mod decode;
mod encode;
mod parse;
mod pipe;
mod reading;
mod scan;
mod server;

pub use client::H1Client;
pub use scan::HeadError;
pub use server::serve_h1;
pub(super) use server::serve_h1_from;
