//! Capture: in a pod's network namespace the kernel redirects the application's connections to the proxy.
//!
//! | module | its job |
//! | --- | --- |
//! | [`arrival`] | what a redirected connection had dialled |
//! | [`verify`] | whether the rules (`leno_capture`) work where this proxy runs |
//!
//! Invariant: what decides is the original destination of a connection, never a listener's port (docs/adr/0014-capture.md).

pub(crate) mod arrival;
pub(crate) mod verify;
