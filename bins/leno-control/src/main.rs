//! Thin main of `leno-control`.

fn main() {}
