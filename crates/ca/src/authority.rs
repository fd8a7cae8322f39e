//! The intermediate that issues workload certificates.
//!
//! Invariant: a leaf names exactly the identity that the caller authenticated, is no CA, and ends no later than any
//! certificate above it. An authority that could not do so is refused when it is loaded, not when the first pod asks.

use std::time::Duration;

use leno_identity::{
    CONTROL_PLANE_DNS_NAME, CertificateDer, CsrDer, KeyPair, SpiffeId, Trust, TrustBundle, TrustDomain,
    TrustProblem, UnixTime, VerifyError, control_plane_identity, csr_for,
    pem::{self, PemProblem},
    verify_peer,
};
use rcgen::{Issuer, SanType};

use crate::{
    cacerts::AuthorityPem,
    csr::{self, CsrProblem},
    root::{end_of, key_from_pem},
    template::{self, NoRandomness},
};

/// The lifetime to ask for when a workload names none.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// A cluster's issuing authority.
pub struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    // Invariant: issuing authority first, without root.
    above: Vec<CertificateDer<'static>>,
    bundle: TrustBundle,
    not_after: UnixTime,
}

/// A workload's new certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedChain {
    /// Leaf first, then what is between it and the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots of the trust domain.
    pub roots: Vec<CertificateDer<'static>>,
    /// The leaf's last valid second, as issued: the wished lifetime may have been cut.
    pub not_after: UnixTime,
}

/// Why certificates and key make no issuing authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityProblem {
    /// `ca-cert.pem` is bad.
    #[error("ca-cert.pem cannot be read")]
    Certificate(#[source] PemProblem),
    /// `cert-chain.pem` is bad.
    #[error("cert-chain.pem cannot be read")]
    Chain(#[source] PemProblem),
    /// `ca-key.pem` is bad.
    #[error("ca-key.pem is missing, malformed or of an unsupported kind")]
    Key(#[source] rcgen::Error),
    /// `root-cert.pem` is bad.
    #[error("root-cert.pem cannot be used")]
    Roots(#[from] TrustProblem),
    /// `ca-cert.pem` or a certificate above it is no X.509.
    #[error("a certificate in ca-cert.pem or cert-chain.pem is malformed")]
    Malformed,
    /// A first certificate could not be made.
    #[error("the authority cannot issue")]
    Issue(#[from] IssueError),
    /// The first certificate is not believed by the trust domain's own roots.
    #[error(
        "what this authority issues would be refused by its own mesh: {0} (do ca-key.pem, ca-cert.pem, cert-chain.pem and root-cert.pem belong together?)"
    )]
    Refused(VerifyError),
}

/// Why a certificate is not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is bad.
    #[error(transparent)]
    Csr(#[from] CsrProblem),
    /// The identity is of another trust domain.
    #[error("{id} is not of the trust domain {domain}, for which this authority issues")]
    ForeignTrustDomain {
        /// Who asked.
        id: SpiffeId,
        /// Ours.
        domain: TrustDomain,
    },
    /// The identity names no workload.
    #[error("{id} names a trust domain, not a workload")]
    NoWorkload {
        /// Who asked.
        id: SpiffeId,
    },
    /// A lifetime of nothing.
    #[error("the certificate would have no lifetime")]
    NoLifetime,
    /// The authority is over.
    #[error("the issuing authority of {domain} has expired; it needs a new intermediate")]
    AuthorityExpired {
        /// Whose.
        domain: TrustDomain,
    },
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Signing fails.
    #[error("the certificate cannot be signed")]
    Signing(#[from] rcgen::Error),
}

impl Authority {
    /// An authority from PEM, proved by issuing a certificate and verifying it as a peer would.
    ///
    /// # Errors
    /// When a part is bad, the parts do not belong together, or `now` is outside their time.
    pub fn from_pem(
        domain: &TrustDomain,
        pem: &AuthorityPem,
        now: UnixTime,
    ) -> Result<Self, AuthorityProblem> {
        let AuthorityPem { ca_cert, ca_key, cert_chain, root_cert } = pem;
        let bundle = TrustBundle::from_pem(domain.clone(), root_cert.as_bytes())?;
        let own = pem::certificates(ca_cert.as_bytes()).map_err(AuthorityProblem::Certificate)?.remove(0);
        let chain = pem::certificates(cert_chain.as_bytes()).map_err(AuthorityProblem::Chain)?;
        // Istio's files may repeat the authority or end with the root; a peer needs neither twice, nor the root at all.
        let mut above = vec![own.clone()];
        above.extend(chain.into_iter().filter(|certificate| *certificate != own));
        above.retain(|certificate| !bundle.roots().contains(certificate));

        let key = key_from_pem(ca_key.as_bytes()).map_err(AuthorityProblem::Key)?;
        let issuer = Issuer::from_ca_cert_der(&own, key).map_err(|_| AuthorityProblem::Malformed)?;
        let ends = std::iter::once(&own).chain(&above).map(end_of).collect::<Option<Vec<_>>>();
        let not_after = ends.and_then(|ends| ends.into_iter().min()).ok_or(AuthorityProblem::Malformed)?;
        let authority = Self { issuer, above, bundle, not_after };
        authority.prove(now)?;
        Ok(authority)
    }

    /// Issues a certificate to a workload that the caller has authenticated as `identity`.
    /// Of the request only the public key is used. The lifetime is cut to the authority's own end.
    ///
    /// # Errors
    /// When the request is bad, the identity is not ours, or the authority has expired.
    pub fn issue(
        &self,
        csr: &CsrDer,
        identity: &SpiffeId,
        ttl: Duration,
        now: UnixTime,
    ) -> Result<IssuedChain, IssueError> {
        self.sign(csr, identity, &[], ttl, now)
    }

    /// Issues a control plane's own certificate: its SPIFFE id, and for ordinary clients the DNS name `leno-control` and
    /// those of `names` (a Service's, by which an API server calls a webhook).
    ///
    /// # Errors
    /// As [`Authority::issue`], and when a name is no DNS name.
    pub fn issue_control_plane(
        &self,
        csr: &CsrDer,
        identity: &SpiffeId,
        names: &[String],
        ttl: Duration,
        now: UnixTime,
    ) -> Result<IssuedChain, IssueError> {
        let names: Vec<&str> =
            std::iter::once(CONTROL_PLANE_DNS_NAME).chain(names.iter().map(String::as_str)).collect();
        self.sign(csr, identity, &names, ttl, now)
    }

    /// The trust domain it issues for.
    pub fn domain(&self) -> &TrustDomain {
        self.bundle.domain()
    }

    /// The roots that believe it.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Its last valid second; operators need warning long before.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    fn sign(
        &self,
        csr: &CsrDer,
        identity: &SpiffeId,
        dns_names: &[&str],
        ttl: Duration,
        now: UnixTime,
    ) -> Result<IssuedChain, IssueError> {
        let domain = self.bundle.domain();
        if identity.trust_domain() != domain.as_str() {
            return Err(IssueError::ForeignTrustDomain { id: identity.clone(), domain: domain.clone() });
        }
        if identity.path().is_empty() {
            return Err(IssueError::NoWorkload { id: identity.clone() });
        }
        if now >= self.not_after {
            return Err(IssueError::AuthorityExpired { domain: domain.clone() });
        }
        if ttl.as_secs() == 0 {
            return Err(IssueError::NoLifetime);
        }
        let public_key = csr::public_key(csr)?;
        let end = UnixTime::since_unix_epoch(template::seconds(now).saturating_add(ttl));
        let not_after = end.min(self.not_after);
        let mut params = template::leaf(now, not_after)?;
        params.subject_alt_names.push(SanType::URI(identity.as_str().try_into()?));
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        let leaf = params.signed_by(&public_key, &self.issuer)?;
        let mut chain = Vec::with_capacity(1 + self.above.len());
        chain.push(leaf.into());
        chain.extend_from_slice(&self.above);
        Ok(IssuedChain {
            chain,
            roots: self.bundle.roots().to_vec(),
            not_after: UnixTime::since_unix_epoch(template::seconds(not_after)),
        })
    }

    /// Finds at once what would otherwise fail in every handshake: foreign keys, subjects that do not survive re-encoding, constraints.
    fn prove(&self, now: UnixTime) -> Result<(), AuthorityProblem> {
        let key = KeyPair::generate().map_err(|_| IssueError::NoRandomness(NoRandomness))?;
        let csr = csr_for(&key).map_err(|_| IssueError::NoRandomness(NoRandomness))?;
        let identity = control_plane_identity(self.bundle.domain());
        let issued = self.issue_control_plane(&csr, &identity, &[], Duration::from_secs(60), now)?;
        let trust = Trust::new([self.bundle.clone()]);
        verify_peer(&issued.chain, &trust, now).map_err(AuthorityProblem::Refused)?;
        Ok(())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.bundle.domain())
    }
}
