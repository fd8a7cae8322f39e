//! Carries an admitted request, or a connection, to an endpoint.
//!
//! | module | its job |
//! | --- | --- |
//! | [`application`] | to this proxy's own application |
//! | [`attempts`] | one request: attempts, retries, deadline, mirror |
//! | [`connect`] | a new connection: address, TLS, preface |
//! | [`exchange`] | one request over one connection, pooled or new |
//! | [`guarded`] | a body or tunnel that holds something while it lasts |
//! | [`mirror`] | copies of a request whose answers are thrown away |
//! | [`pool`] | connections kept for reuse |
//! | [`replay`] | a request's body that can be sent again |
//! | [`stream`] | a connection with or without TLS as one type |
//! | [`target`] | what a backend of a route means at this moment: its endpoints and their security |

pub(crate) mod application;
pub(crate) mod attempts;
pub(crate) mod connect;
pub(crate) mod exchange;
pub(crate) mod guarded;
pub(crate) mod mirror;
pub(crate) mod pool;
pub(crate) mod replay;
pub(crate) mod stream;
pub(crate) mod target;
