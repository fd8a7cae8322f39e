//! Private keys of workloads and the requests they sign.
//!
//! Invariant: a key is ECDSA P-256, is made here and stays in this process; what leaves is a request with the public half,
//! or PEM for the memory-backed state directory. Whoever writes that file gives it mode 0600.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use leno_model::identity::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::pem;

/// A workload's private key. Clones share it.
#[derive(Clone)]
pub struct KeyPair(Arc<Material>);

struct Material {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

/// A PKCS#10 certificate signing request in DER.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsrDer(Vec<u8>);

/// Why a key cannot be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The crypto library has no randomness or memory.
    #[error("the crypto library could not make or use a key")]
    Crypto,
    /// Not PEM, or no PKCS#8 section in it.
    #[error("there is no PKCS#8 private key (BEGIN PRIVATE KEY) in the PEM text")]
    NotPkcs8,
    /// Another kind of key.
    #[error("the private key is not an ECDSA P-256 key")]
    NotP256,
}

impl KeyPair {
    /// Makes a new ECDSA P-256 key.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn generate() -> Result<Self, KeyProblem> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyProblem::Crypto)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyProblem::Crypto)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok(Self(Arc::new(Material { pair, pkcs8 })))
    }

    /// Reads what [`KeyPair::to_pem`] wrote.
    ///
    /// # Errors
    /// When it is not a P-256 key in PKCS#8.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyProblem> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyProblem::NotPkcs8)?;
        let pkcs8 = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|_| KeyProblem::NotP256)?;
        Ok(Self(Arc::new(Material { pair, pkcs8 })))
    }

    /// The key as PEM, which wipes itself when dropped. The caller writes it to memory-backed storage with mode 0600.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode_private_key(&self.0.pkcs8)
    }

    pub(crate) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, KeyProblem> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.pkcs8.as_slice()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|_| KeyProblem::NotP256)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(hidden)")
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.pair.sign(&SystemRandom::new(), message);
        signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| rcgen::Error::RingUnspecified)
    }
}

impl CsrDer {
    /// A request that came over the wire; nothing about it is checked yet.
    pub fn from_bytes(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to send.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A request for the public half of `key`. It names no identity: the issuer takes that from whom it authenticated.
///
/// # Errors
/// When signing fails.
pub fn csr_for(key: &KeyPair) -> Result<CsrDer, KeyProblem> {
    request(key, None)
}

/// As [`csr_for`], with the wished identity as a URI SAN, for issuers that insist on one (istio-csr, cert-manager).
///
/// # Errors
/// When signing fails.
pub fn csr_naming(key: &KeyPair, identity: &SpiffeId) -> Result<CsrDer, KeyProblem> {
    request(key, Some(identity))
}

fn request(key: &KeyPair, identity: Option<&SpiffeId>) -> Result<CsrDer, KeyProblem> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(identity) = identity {
        let uri = identity.as_str().try_into().map_err(|_| KeyProblem::Crypto)?;
        params.subject_alt_names.push(SanType::URI(uri));
    }
    let request = params.serialize_request(key).map_err(|_| KeyProblem::Crypto)?;
    Ok(CsrDer(request.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_and_stays_out_of_debug() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!(rcgen::PublicKeyData::der_bytes(&key), rcgen::PublicKeyData::der_bytes(&again));
        assert_eq!(format!("{key:?}"), "KeyPair(hidden)");
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(KeyPair::from_pem(p384.serialize_pem().as_bytes()).map(|_| ()), Err(KeyProblem::NotP256));
        assert_eq!(KeyPair::from_pem(b"nothing").map(|_| ()), Err(KeyProblem::NotPkcs8));
    }
}
