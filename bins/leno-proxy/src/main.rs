//! Thin main of `leno-proxy`.

fn main() {}
