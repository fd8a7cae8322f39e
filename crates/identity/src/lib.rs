//! Who a workload is and how it proves it: keys, CSRs, certificates, trust bundles, peer verification, rustls configurations.
//!
//! Invariants: no sockets and no clock of its own beyond rustls' time provider; mesh TLS is 1.3 only, without resumption,
//! so that every connection verifies its peer against the trust of that moment; a private key leaves this crate only
//! as PEM that wipes itself. Must not know: endpoints, routes, Kubernetes, or how a certificate is signed (that is `ca`).
//!
//! | module | holds |
//! | --- | --- |
//! | [`key`] | private keys and certificate signing requests |
//! | [`certificate`] | a workload's own certificate and when to renew it |
//! | [`leaf`] | what a leaf certificate says about its holder |
//! | [`trust`] | roots by trust domain |
//! | [`verify`] | verification of a peer, with precise causes |
//! | [`store`] | the current certificate and trust, swapped under running configurations |
//! | [`expected`] | the identities that a server may have, as a handle |
//! | [`mesh`] | rustls configurations between proxies and towards the control plane |
//! | [`gateway`] | rustls configurations for clients outside the mesh |
//! | [`originate`] | rustls configurations towards servers outside the mesh |
//! | [`failure`] | why a handshake failed, in an operator's words |
//! | [`pem`] | PEM in and out |
//! | [`provider`] | the one crypto provider |

#![forbid(unsafe_code)]

pub mod certificate;
pub mod expected;
pub mod failure;
pub mod gateway;
pub mod key;
pub mod leaf;
pub mod mesh;
pub mod originate;
pub mod pem;
pub mod provider;
pub mod store;
pub mod trust;
pub mod verify;

pub use certificate::{CertificateProblem, WorkloadCertificate};
pub use expected::ExpectedPeers;
pub use failure::HandshakeFailure;
pub use gateway::{MinimumVersion, ServerCertificate, TlsConfigError, gateway_server_config};
pub use key::{CsrDer, KeyPair, KeyProblem, csr_for};
pub use leaf::Serial;
pub use leno_model::identity::{SpiffeId, SpiffeIdError, TrustDomain};
pub use mesh::{ClientAuth, client_config, server_config};
pub use originate::{PlainTrust, plain_client_config};
pub use rustls_pki_types::{CertificateDer, UnixTime};
pub use store::IdentityStore;
pub use trust::{Trust, TrustBundle, TrustProblem};
pub use verify::{PeerIdentity, VerifyError, peer_identity, verify_peer};

/// The DNS name in the control plane's own certificate, for clients that know no SPIFFE ids.
pub const CONTROL_PLANE_DNS_NAME: &str = "leno-control";

/// The namespace of control planes whose installation names no other.
pub const CONTROL_PLANE_NAMESPACE: &str = "leno-system";

/// The identity of a trust domain's control planes where nothing else was installed: an embedded mesh's.
pub fn control_plane_identity(domain: &TrustDomain) -> SpiffeId {
    control_plane_identity_in(domain, CONTROL_PLANE_NAMESPACE).expect("the name is a valid path segment")
}

/// The identity of the control planes that run in a namespace. It is their service account's, so that nobody else's pods have it.
///
/// # Errors
/// When the namespace cannot be part of an identity.
pub fn control_plane_identity_in(domain: &TrustDomain, namespace: &str) -> Result<SpiffeId, SpiffeIdError> {
    SpiffeId::workload(domain, namespace, "leno-control")
}
