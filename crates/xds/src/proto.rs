//! Generated messages and services; the generator is `tests/it/codegen.rs`.
//!
//! Must not be edited by hand: a test compares it with the protos.

/// `leno.discovery.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
pub mod discovery {
    include!("gen/leno.discovery.v1.rs");
}

/// `leno.identity.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
pub mod identity {
    include!("gen/leno.identity.v1.rs");
}

/// `leno.replicas.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
pub mod replicas {
    include!("gen/leno.replicas.v1.rs");
}
