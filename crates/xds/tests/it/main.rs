//! Tests of the crate from outside: the checked-in code and the protocol over real sockets.

// The exemption for tests does not reach the functions beside them.
#![allow(clippy::unwrap_used)]

mod codegen;
mod tcp;
