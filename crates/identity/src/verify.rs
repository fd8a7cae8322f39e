//! Verifies a peer's certificate chain and says precisely what is wrong with it (PAINS P9).
//!
//! Invariant: a [`PeerIdentity`] exists only for a chain that ends in a root of the identity's own trust domain.
//! Must not know: connections, and which identity is wanted (that is [`crate::ExpectedPeers`]).

use std::{collections::BTreeSet, fmt, sync::Arc};

use aws_lc_rs::digest;
use leno_model::identity::{SpiffeId, SpiffeIdError};
use rustls::CommonState;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::{
    leaf::{Leaf, Serial},
    provider::provider,
    trust::{Trust, TrustBundle},
};

/// Longer chains are refused unread.
pub const MAX_CHAIN: usize = 8;

/// Who a verified peer is.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its identity.
    pub spiffe_id: SpiffeId,
    /// When its certificate ends.
    pub not_after: UnixTime,
    /// Its certificate's serial number.
    pub serial: Serial,
    /// SHA-256 of its certificate (the `Hash` of XFCC).
    pub fingerprint: [u8; 32],
}

/// Why a peer's certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It sent none.
    #[error("the peer sent no certificate; it has no identity yet or is not in the mesh")]
    NoCertificate,
    /// It sent too many.
    #[error("the peer sent a chain of {length} certificates; {MAX_CHAIN} is the most")]
    ChainTooLong {
        /// How many.
        length: usize,
    },
    /// A certificate cannot be read.
    #[error("the peer's certificate is malformed")]
    Malformed,
    /// No URI SAN at all.
    #[error("the peer's certificate has no SPIFFE id; it was not issued by a mesh's authority")]
    NoSpiffeId,
    /// Several URI SANs.
    #[error("the peer's certificate has {count} URI names ({}) where a mesh identity has exactly one", .first.join(", "))]
    SeveralUris {
        /// How many.
        count: usize,
        /// Some of them.
        first: Vec<String>,
    },
    /// The URI SAN is no SPIFFE id.
    #[error("the URI name {uri} in the peer's certificate is not a SPIFFE id: {problem}")]
    InvalidSpiffeId {
        /// The name.
        uri: String,
        /// What is wrong with it.
        problem: SpiffeIdError,
    },
    /// The id is that of a trust domain.
    #[error("the peer's certificate names the trust domain {id}, not a workload")]
    NoWorkload {
        /// The id.
        id: SpiffeId,
    },
    /// The leaf is a CA.
    #[error("the certificate of {id} is an authority's; it must not be used by a workload")]
    LeafIsAuthority {
        /// Whose.
        id: SpiffeId,
    },
    /// Key usage is missing or wrong.
    #[error("the certificate of {id} may not be used to sign handshakes (key usage)")]
    KeyUsage {
        /// Whose.
        id: SpiffeId,
    },
    /// Extended key usage is wrong.
    #[error("the certificate of {id} may not be used for both ends of TLS (extended key usage)")]
    ExtendedKeyUsage {
        /// Whose.
        id: SpiffeId,
    },
    /// We know no root of its trust domain.
    #[error(
        "{id} is of another trust domain, whose trust bundle is not known here; is the other mesh federated?"
    )]
    UnknownTrustDomain {
        /// Whose.
        id: SpiffeId,
    },
    /// Its chain does not end in a root of its trust domain.
    #[error("the certificate of {id} was not issued under a known root of {}; was the root replaced, or is this another mesh with the same trust domain?", .id.trust_domain())]
    UnknownCa {
        /// Whose.
        id: SpiffeId,
    },
    /// Its time is over.
    #[error("the certificate of {id} (or of its issuer) expired {} s ago; its renewal fails, or a clock is wrong", .now.as_secs().saturating_sub(.not_after.as_secs()))]
    Expired {
        /// Whose.
        id: SpiffeId,
        /// When it ended.
        not_after: UnixTime,
        /// When that was noticed.
        now: UnixTime,
    },
    /// Its time has not come.
    #[error("the certificate of {id} (or of its issuer) is valid only in {} s; a clock is wrong", .not_before.as_secs().saturating_sub(.now.as_secs()))]
    NotYetValid {
        /// Whose.
        id: SpiffeId,
        /// When it starts.
        not_before: UnixTime,
        /// When that was noticed.
        now: UnixTime,
    },
    /// The chain is wrong in another way.
    #[error("the certificate chain of {id} is not acceptable: {problem}")]
    Chain {
        /// Whose.
        id: SpiffeId,
        /// What is wrong.
        problem: webpki::Error,
    },
    /// It is somebody else than wanted.
    #[error("expected {}, but the peer is {got}; the address may have been reused, or the service's pods use another service account", Listed(.expected))]
    WrongIdentity {
        /// Who would have been right.
        expected: Arc<BTreeSet<SpiffeId>>,
        /// Who it is.
        got: SpiffeId,
    },
}

/// Verifies a peer's chain, leaf first, for either end of a connection.
///
/// # Errors
/// With the cause.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixTime,
) -> Result<PeerIdentity, VerifyError> {
    let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
    verify_presented(leaf, intermediates, trust, now)
}

/// As [`verify_peer`], in the two parts that rustls hands over.
pub(crate) fn verify_presented(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixTime,
) -> Result<PeerIdentity, VerifyError> {
    let length = 1 + intermediates.len();
    if length > MAX_CHAIN {
        return Err(VerifyError::ChainTooLong { length });
    }
    let facts = Leaf::parse(leaf)?;
    let Some(bundle) = trust.bundle(facts.spiffe_id.trust_domain()) else {
        return Err(VerifyError::UnknownTrustDomain { id: facts.spiffe_id });
    };
    verify_chain(leaf, intermediates, bundle, now)
        .map_err(|problem| cause(problem, facts.spiffe_id.clone(), now))?;
    Ok(identity_of(leaf, facts))
}

/// Who is at the other end of a mesh connection whose handshake is done; `None` when the peer sent no mesh certificate.
///
/// Only for connections of this crate's mesh configurations: they have verified the certificate that is read here.
pub fn peer_identity(connection: &CommonState) -> Option<PeerIdentity> {
    let leaf = connection.peer_certificates()?.first()?;
    Some(identity_of(leaf, Leaf::parse(leaf).ok()?))
}

fn identity_of(leaf: &CertificateDer<'_>, facts: Leaf) -> PeerIdentity {
    let Leaf { spiffe_id, not_before: _, not_after, serial } = facts;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
    PeerIdentity { spiffe_id, not_after, serial, fingerprint }
}

fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: UnixTime,
) -> Result<(), webpki::Error> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let anchor_is_valid = |path: &webpki::VerifiedPath<'_>| match bundle.validity_of(path.anchor()) {
        Some((not_before, _)) if now < not_before => {
            Err(webpki::Error::CertNotValidYet { time: now, not_before })
        }
        Some((_, not_after)) if now > not_after => Err(webpki::Error::CertExpired { time: now, not_after }),
        Some(_) => Ok(()),
        None => Err(webpki::Error::UnknownIssuer),
    };
    leaf.verify_for_usage(
        provider().signature_verification_algorithms.all,
        bundle.anchors(),
        intermediates,
        now,
        // The leaf was asked for both ends already; this is for constraints of its issuers.
        KeyUsage::server_auth(),
        None,
        Some(&anchor_is_valid),
    )?;
    Ok(())
}

fn cause(problem: webpki::Error, id: SpiffeId, now: UnixTime) -> VerifyError {
    use webpki::Error::*;
    match problem {
        CertExpired { not_after, .. } => VerifyError::Expired { id, not_after, now },
        CertNotValidYet { not_before, .. } => VerifyError::NotYetValid { id, not_before, now },
        // Two roots may have one name; then the signature is what tells them apart.
        UnknownIssuer
        | InvalidSignatureForPublicKey
        | UnsupportedSignatureAlgorithmForPublicKeyContext(_) => VerifyError::UnknownCa { id },
        problem => VerifyError::Chain { id, problem },
    }
}

impl PeerIdentity {
    /// Whether its certificate has ended.
    pub fn is_expired(&self, now: UnixTime) -> bool {
        now > self.not_after
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerIdentity({}, serial {})", self.spiffe_id, self.serial)
    }
}

/// Identities as a person lists them; long lists are cut.
struct Listed<'a>(&'a BTreeSet<SpiffeId>);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        if self.0.is_empty() {
            return f.write_str("nobody (no identity is known for this service)");
        }
        for (position, id) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{id}", if position == 0 { "" } else { " or " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " or {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
