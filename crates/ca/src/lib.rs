//! Issues workload certificates; the only crate that touches signing keys.
//!
//! Invariant: what a certificate says comes from whom the caller authenticated, never from the request; of a request only the public
//! key is used. Must not know: how callers are authenticated, and who asks for what over which connection.
//!
//! | module | holds |
//! | --- | --- |
//! | [`root`] | a trust domain's root and the intermediates it signs |
//! | [`authority`] | the intermediate that issues workload certificates |
//! | [`csr`] | the public key of a request |
//! | [`cacerts`] | an authority on disk, in Istio's `cacerts` layout |
//! | [`join`] | one-use tokens that prove a workload's identity once |
//! | [`digest`] | how a token is named in a file |

#![forbid(unsafe_code)]

pub mod authority;
pub mod cacerts;
pub mod csr;
pub mod digest;
pub mod join;
pub mod root;

mod template;

pub use authority::{Authority, AuthorityProblem, DEFAULT_TTL, IssueError, IssuedChain};
pub use cacerts::{AuthorityPem, CacertsProblem};
pub use csr::CsrProblem;
pub use digest::token_digest;
pub use join::{JoinProblem, JoinToken, JoinTokens, TokensFull};
pub use root::{Intermediate, Root, RootProblem};
pub use template::NoRandomness;
