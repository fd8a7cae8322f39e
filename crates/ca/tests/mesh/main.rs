//! Identity and authority together: what is issued, and what handshakes make of it.

mod chains;
mod gateways;
mod handshakes;
mod requests;
mod rotation;
mod world;
