//! A trust domain's root, and the intermediates that it signs: one for each cluster.
//!
//! Invariant: a root signs intermediates only, and an intermediate can sign leaves only. The root's key is needed when a cluster
//! is added, not while the mesh runs: keep its PEM elsewhere.

use std::time::Duration;

use leno_identity::{CertificateDer, TrustBundle, TrustDomain, TrustProblem, UnixTime};
use rcgen::{BasicConstraints, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use crate::{
    authority::{Authority, AuthorityProblem},
    cacerts::AuthorityPem,
    template::{self, NoRandomness},
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a generated root lives.
pub const ROOT_LIFETIME: Duration = YEAR.saturating_mul(10);

/// How long a generated intermediate lives.
pub const INTERMEDIATE_LIFETIME: Duration = YEAR;

/// The root of a trust domain, with its key.
pub struct Root {
    domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_after: UnixTime,
}

/// A cluster's issuing authority as the root made it; [`Intermediate::into_authority`] puts it to work.
pub struct Intermediate {
    domain: TrustDomain,
    pem: AuthorityPem,
}

/// Why a root or an intermediate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RootProblem {
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Making or using a key fails.
    #[error("the authority's key or certificate cannot be used")]
    Signing(#[from] rcgen::Error),
    /// The certificate is bad.
    #[error("the root's certificate cannot be used")]
    Trust(#[from] TrustProblem),
    /// It ends too soon to sign anything.
    #[error("the root certificate of {domain} has expired")]
    Expired {
        /// Whose.
        domain: TrustDomain,
    },
}

impl Root {
    /// Makes a root for ten years.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn generate(domain: &TrustDomain, now: UnixTime) -> Result<Self, RootProblem> {
        let key = KeyPair::generate()?;
        let name = format!("Leno root {domain}");
        let params = template::authority(&name, BasicConstraints::Unconstrained, now, ROOT_LIFETIME)?;
        let certificate = params.self_signed(&key)?.into();
        let not_after = UnixTime::since_unix_epoch(template::seconds(now) + ROOT_LIFETIME);
        Ok(Self { domain: domain.clone(), issuer: Issuer::new(params, key), certificate, not_after })
    }

    /// Reads what [`Root::certificate_pem`] and [`Root::key_pem`] gave, to add a cluster later.
    ///
    /// # Errors
    /// When one is bad. That they belong together shows when an intermediate goes to work.
    pub fn from_pem(domain: &TrustDomain, certificate: &[u8], key: &[u8]) -> Result<Self, RootProblem> {
        let bundle = TrustBundle::from_pem(domain.clone(), certificate)?;
        let certificate = bundle.roots()[0].clone();
        let issuer = Issuer::from_ca_cert_der(&certificate, key_from_pem(key)?)?;
        let not_after = end_of(&certificate).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok(Self { domain: domain.clone(), issuer, certificate, not_after })
    }

    /// The bundle that trusts it.
    ///
    /// # Errors
    /// Never for a generated root.
    pub fn bundle(&self) -> Result<TrustBundle, TrustProblem> {
        TrustBundle::new(self.domain.clone(), vec![self.certificate.clone()])
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        leno_identity::pem::encode_certificates([&self.certificate])
    }

    /// The key as PEM. Whoever has it is the mesh: it belongs where no control plane can read it.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Root({})", self.domain)
    }
}

impl Intermediate {
    /// Makes a cluster's authority under a root, for a year or as long as the root lives.
    ///
    /// # Errors
    /// When the crypto library fails or the root has expired.
    pub fn issue_by(root: &Root, cluster: &str, now: UnixTime) -> Result<Self, RootProblem> {
        Self::issue_for(root, cluster, INTERMEDIATE_LIFETIME, now)
    }

    /// The same for a lifetime, or as long as the root lives.
    ///
    /// # Errors
    /// When the crypto library fails or the root has expired.
    pub fn issue_for(
        root: &Root,
        cluster: &str,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Self, RootProblem> {
        let left = template::seconds(root.not_after).saturating_sub(template::seconds(now));
        if left.is_zero() {
            return Err(RootProblem::Expired { domain: root.domain.clone() });
        }
        let key = KeyPair::generate()?;
        let name = format!("Leno {cluster} {}", root.domain);
        let below = BasicConstraints::Constrained(0);
        let params = template::authority(&name, below, now, left.min(lifetime))?;
        let certificate = params.signed_by(&key, &root.issuer)?;
        let pem = AuthorityPem {
            ca_cert: certificate.pem(),
            ca_key: Zeroizing::new(key.serialize_pem()),
            cert_chain: certificate.pem(),
            root_cert: root.certificate_pem(),
        };
        Ok(Self { domain: root.domain.clone(), pem })
    }

    /// What to keep of it, in Istio's layout.
    pub fn pem(&self) -> &AuthorityPem {
        &self.pem
    }

    /// The issuing authority.
    ///
    /// # Errors
    /// When `now` is outside its time.
    pub fn into_authority(self, now: UnixTime) -> Result<Authority, AuthorityProblem> {
        Authority::from_pem(&self.domain, &self.pem, now)
    }
}

impl std::fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Intermediate({})", self.domain)
    }
}

/// A signing key of any kind that we can sign with: PKCS#8, SEC1 or PKCS#1.
pub(crate) fn key_from_pem(pem: &[u8]) -> Result<KeyPair, rcgen::Error> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    KeyPair::try_from(&key)
}

/// A certificate's last valid second.
pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
