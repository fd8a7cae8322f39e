//! Thin main of `leno`.

fn main() {}
