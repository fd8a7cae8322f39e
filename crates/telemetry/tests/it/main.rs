//! Tests of the crate from outside: checked-in code, exposition, export to a collector.

// The exemption for tests does not reach the functions beside them.
#![allow(clippy::unwrap_used)]

mod codegen;
