//! A workload's own certificate: chain, key and when to renew it.
//!
//! Invariant: the key belongs to the leaf, the leaf names exactly one workload, and the key is never shown.

use std::{fmt, sync::Arc, time::Duration};

use leno_model::identity::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use zeroize::Zeroizing;

use crate::{
    key::{KeyPair, KeyProblem},
    leaf::{Leaf, Serial},
    pem::{self, PemProblem},
    verify::VerifyError,
};

/// A certificate chain with its key. Share it in an `Arc`.
pub struct WorkloadCertificate {
    leaf: Leaf,
    key: KeyPair,
    certified: Arc<CertifiedKey>,
}

/// Why a chain and a key make no workload certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    Empty,
    /// The PEM text is bad.
    #[error("the certificate chain cannot be read")]
    Pem(#[from] PemProblem),
    /// The key is bad.
    #[error(transparent)]
    Key(#[from] KeyProblem),
    /// The leaf is not a workload's.
    #[error("the issued certificate is not a workload's")]
    Leaf(#[source] VerifyError),
    /// The key is of another certificate.
    #[error("the private key does not belong to the certificate of {id}")]
    OtherKey {
        /// Whose certificate.
        id: SpiffeId,
    },
}

impl WorkloadCertificate {
    /// From a chain (leaf first, without root) and its key.
    ///
    /// # Errors
    /// When they do not belong together or the leaf is not a workload's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: KeyPair) -> Result<Self, CertificateProblem> {
        let leaf = Leaf::parse(chain.first().ok_or(CertificateProblem::Empty)?);
        let leaf = leaf.map_err(CertificateProblem::Leaf)?;
        let certified = CertifiedKey::new(chain, key.signing_key()?);
        if certified.keys_match().is_err() {
            return Err(CertificateProblem::OtherKey { id: leaf.spiffe_id });
        }
        Ok(Self { leaf, key, certified: Arc::new(certified) })
    }

    /// From DER certificates, as the issuer sends them.
    ///
    /// # Errors
    /// As [`WorkloadCertificate::new`].
    pub fn from_der(
        chain: impl IntoIterator<Item = Vec<u8>>,
        key: KeyPair,
    ) -> Result<Self, CertificateProblem> {
        Self::new(chain.into_iter().map(CertificateDer::from).collect(), key)
    }

    /// From what [`WorkloadCertificate::chain_pem`] and [`WorkloadCertificate::key_pem`] gave. Ask [`WorkloadCertificate::is_valid_at`] before use.
    ///
    /// # Errors
    /// As [`WorkloadCertificate::new`], or when it is not PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateProblem> {
        Self::new(pem::certificates(chain)?, KeyPair::from_pem(key)?)
    }

    /// Whom it names.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.leaf.spiffe_id
    }

    /// The chain, leaf first, without root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// First valid second (the issuer dates it back).
    pub fn not_before(&self) -> UnixTime {
        self.leaf.not_before
    }

    /// Last valid second.
    pub fn not_after(&self) -> UnixTime {
        self.leaf.not_after
    }

    /// The leaf's serial number.
    pub fn serial(&self) -> &Serial {
        &self.leaf.serial
    }

    /// Whether it is within its time.
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.leaf.not_before <= now && now <= self.leaf.not_after
    }

    /// When to renew it: at half of what is left `now` (when it was received or loaded), a fifth of that earlier or later.
    /// `jitter` is random in 0..1, so that a fleet that started together does not renew together.
    pub fn renew_at(&self, now: UnixTime, jitter: f64) -> UnixTime {
        let left = self.leaf.not_after.as_secs().saturating_sub(now.as_secs());
        let share = 0.4 + 0.2 * if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        let start = Duration::from_secs(now.as_secs());
        UnixTime::since_unix_epoch(start + Duration::from_secs(left).mul_f64(share))
    }

    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.certified.cert)
    }

    /// The key as PEM, for memory-backed storage with mode 0600 (the caller's job).
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}
