//! Tests of the crate from outside.

mod codegen;
mod mesh;
