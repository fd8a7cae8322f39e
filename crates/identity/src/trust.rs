//! Whom to trust: the roots of each trust domain.
//!
//! Invariant: a domain's roots speak for that domain only; there is no flat list of roots.

use std::{collections::BTreeMap, sync::Arc};

use leno_model::identity::TrustDomain;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use crate::{
    leaf,
    pem::{self, PemProblem},
};

/// The roots of one trust domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustBundle {
    domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    // Invariant: as long as `roots`, in the same order; so is `validity`.
    anchors: Vec<TrustAnchor<'static>>,
    validity: Vec<(UnixTime, UnixTime)>,
}

/// The bundles of all trusted domains. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
}

/// Why roots cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustProblem {
    /// There is no certificate.
    #[error("the trust bundle of {domain} has no root certificate")]
    Empty {
        /// Whose bundle.
        domain: TrustDomain,
    },
    /// The PEM text is bad.
    #[error("the trust bundle of {domain} cannot be read")]
    Pem {
        /// Whose bundle.
        domain: TrustDomain,
        /// What is wrong with it.
        source: PemProblem,
    },
    /// A certificate is malformed.
    #[error("certificate {position} in the trust bundle of {domain} is malformed")]
    Malformed {
        /// Whose bundle.
        domain: TrustDomain,
        /// Counted from 1.
        position: usize,
    },
    /// A certificate is not of an authority.
    #[error("certificate {position} in the trust bundle of {domain} is not of an authority (no CA:TRUE)")]
    NotAuthority {
        /// Whose bundle.
        domain: TrustDomain,
        /// Counted from 1.
        position: usize,
    },
}

impl TrustBundle {
    /// From DER certificates, as they come over the wire.
    ///
    /// # Errors
    /// When there is none, or one is malformed or not of an authority.
    pub fn from_der(
        domain: TrustDomain,
        roots: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Self, TrustProblem> {
        Self::new(domain, roots.into_iter().map(CertificateDer::from).collect())
    }

    /// From PEM.
    ///
    /// # Errors
    /// As [`TrustBundle::from_der`], or when it is not PEM.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, TrustProblem> {
        match pem::certificates(pem) {
            Ok(roots) => Self::new(domain, roots),
            Err(source) => Err(TrustProblem::Pem { domain, source }),
        }
    }

    /// From certificates.
    ///
    /// # Errors
    /// As [`TrustBundle::from_der`].
    pub fn new(domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, TrustProblem> {
        if roots.is_empty() {
            return Err(TrustProblem::Empty { domain });
        }
        let mut anchors = Vec::with_capacity(roots.len());
        let mut validity = Vec::with_capacity(roots.len());
        for (position, root) in (1..).zip(&roots) {
            let malformed = || TrustProblem::Malformed { domain: domain.clone(), position };
            if !leaf::is_authority(root).map_err(|_| malformed())? {
                return Err(TrustProblem::NotAuthority { domain, position });
            }
            anchors.push(webpki::anchor_from_trusted_cert(root).map_err(|_| malformed())?.to_owned());
            validity.push(leaf::validity(root).map_err(|_| malformed())?);
        }
        Ok(Self { domain, roots, anchors, validity })
    }

    /// Whose roots these are.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root certificates.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The root certificates as PEM.
    pub fn to_pem(&self) -> String {
        pem::encode_certificates(&self.roots)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// When an anchor of this bundle is valid. webpki does not ask this of anchors, we do.
    pub(crate) fn validity_of(&self, anchor: &TrustAnchor<'_>) -> Option<(UnixTime, UnixTime)> {
        let position = self.anchors.iter().position(|ours| std::ptr::eq(ours, anchor))?;
        self.validity.get(position).copied()
    }
}

impl Trust {
    /// Trust in these domains. Of two bundles for one domain the later wins.
    pub fn new(bundles: impl IntoIterator<Item = TrustBundle>) -> Self {
        let bundles = bundles.into_iter().map(|bundle| (bundle.domain.clone(), Arc::new(bundle))).collect();
        Self { bundles }
    }

    /// This trust with a bundle added or replaced.
    #[must_use]
    pub fn with(&self, bundle: TrustBundle) -> Self {
        let mut bundles = self.bundles.clone();
        bundles.insert(bundle.domain.clone(), Arc::new(bundle));
        Self { bundles }
    }

    /// A domain's bundle.
    pub fn bundle(&self, domain: &str) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(domain)
    }

    /// All bundles, by domain.
    pub fn bundles(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.bundles.values()
    }
}
