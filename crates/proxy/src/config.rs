//! What the proxy learns from its control plane.
//!
//! | module | its job |
//! | --- | --- |
//! | [`control_link`] | connections to the control plane, over TLS with its identity verified |
//! | [`enrol`] | the first certificate, and its renewal |
//! | [`subscribe`] | resources: staged by generation, applied whole |
//! | [`persist`] | the last good configuration and certificate, across restarts |
//! | [`demand`] | scopes that requests ask for |

pub(crate) mod control_link;
pub(crate) mod demand;
pub(crate) mod enrol;
pub(crate) mod persist;
pub(crate) mod subscribe;
