//! The public key of a certificate signing request.
//!
//! Invariant: the request's signature proves that whoever sent it holds the private key; nothing else in it is looked at, so
//! names, CA flags and unknown extensions that openssl, Go or cert-manager put there neither help nor hurt.

use leno_identity::CsrDer;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer, public_key::PublicKey};

/// Larger requests are refused unread.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// Weakest RSA key, in bits.
const MIN_RSA_BITS: usize = 2048;

/// Largest RSA key, in bits: every verification of a peer costs its square.
const MAX_RSA_BITS: usize = 4096;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrProblem {
    /// Too large.
    #[error("the certificate request has {length} bytes; {MAX_CSR_BYTES} is the most")]
    TooLarge {
        /// Its size.
        length: usize,
    },
    /// Not PKCS#10.
    #[error("the certificate request is malformed (not PKCS#10 in DER)")]
    Malformed,
    /// The signature does not match.
    #[error("the certificate request is not signed by the key that it names")]
    Signature,
    /// A key we do not certify.
    #[error(
        "the certificate request has an unsupported key; ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits is needed"
    )]
    Key,
}

/// The request's public key, after proof that the sender holds the private one.
///
/// # Errors
/// When it is malformed, not signed by its key, or of a kind that we do not certify.
pub fn public_key(csr: &CsrDer) -> Result<SubjectPublicKeyInfo, CsrProblem> {
    let length = csr.as_bytes().len();
    if length > MAX_CSR_BYTES {
        return Err(CsrProblem::TooLarge { length });
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr.as_bytes()).map_err(|_| CsrProblem::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrProblem::Malformed);
    }
    let key = &request.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(rsa)) = key.parsed()
        && !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size())
    {
        return Err(CsrProblem::Key);
    }
    let certified = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrProblem::Key)?;
    if !is_certified_kind(&certified) {
        return Err(CsrProblem::Key);
    }
    request.verify_signature().map_err(|_| CsrProblem::Signature)?;
    Ok(certified)
}

fn is_certified_kind(key: &SubjectPublicKeyInfo) -> bool {
    let kinds = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA384,
        &rcgen::PKCS_RSA_SHA512,
    ];
    kinds.contains(&rcgen::PublicKeyData::algorithm(key))
}
