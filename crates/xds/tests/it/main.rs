//! Tests of the crate from outside: the checked-in code and the protocol over real sockets.

mod codegen;
mod tcp;
