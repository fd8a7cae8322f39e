//! Which endpoint gets an attempt.
//!
//! | module | its job |
//! | --- | --- |
//! | [`health`] | what this proxy has seen of each endpoint: load, failures, ejections; shared by its cores |
//! | [`cluster`] | one core's view of a destination's endpoints, and the choice among them |

pub(crate) mod cluster;
pub(crate) mod health;
