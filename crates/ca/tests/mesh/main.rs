//! Identity and authority together: what is issued, and what handshakes make of it.

// clippy allows this in test functions only, not in the helpers beside them.
#![allow(clippy::unwrap_used)]

mod chains;
mod gateways;
mod handshakes;
mod requests;
mod rotation;
mod world;
