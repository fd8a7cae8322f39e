//! Issues workload certificates; the only crate that touches signing keys.
