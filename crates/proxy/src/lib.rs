//! The data plane: sidecar and gateway.
pub mod http;
