//! rustls configurations towards servers outside the mesh (DestinationRule `SIMPLE` and `MUTUAL`).
//!
//! Invariant: a server is believed when its chain ends in the given authorities *and* one of its names is wanted;
//! only [`PlainTrust::Unverified`] (`insecureSkipVerify`) leaves that out. Nothing of the mesh's trust is used here.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    gateway::{TlsConfigError, root_store},
    leaf,
    provider::provider,
};

/// Where the system's authorities are on Debian and most container images.
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Which servers outside the mesh to believe.
#[derive(Clone, Copy, Debug)]
pub enum PlainTrust<'a> {
    /// Those with a chain to these authorities (PEM; the caller reads [`SYSTEM_AUTHORITIES`] when the user names none).
    Authorities(&'a [u8]),
    /// Any (`insecureSkipVerify`).
    Unverified,
}

/// A client for servers outside the mesh. `names` replaces the dialled name as what the certificate must be for
/// (`subjectAltNames`: DNS names, addresses or URIs); `own` is shown when the server asks (MUTUAL).
///
/// # Errors
/// When authorities are bad.
pub fn plain_client_config(
    trust: PlainTrust<'_>,
    names: &[Arc<str>],
    own: Option<Arc<CertifiedKey>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|problem| TlsConfigError::Refused(problem.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        PlainTrust::Unverified => Arc::new(Unverified),
        PlainTrust::Authorities(pem) if names.is_empty() => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(root_store(pem)?), provider())
                .build()
                .map_err(|problem| TlsConfigError::Refused(problem.to_string()))?
        }
        PlainTrust::Authorities(pem) => Arc::new(ByNames { roots: root_store(pem)?, names: names.into() }),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes a chain to the roots whose leaf has one of the names.
#[derive(Debug)]
struct ByNames {
    roots: rustls::RootCertStore,
    names: Box<[Arc<str>]>,
}

/// Believes anybody; the handshake's signature is still checked.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for ByNames {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let has = |name: &str| match ServerName::try_from(name) {
            _ if name.contains("://") => leaf::has_uri(leaf, name),
            Ok(name) => verify_server_name(&parsed, &name).is_ok(),
            Err(_) => false,
        };
        if self.names.iter().any(|name| has(name)) {
            return Ok(ServerCertVerified::assertion());
        }
        // Asked for its context: which names the certificate has.
        let wanted = self.names.iter().find_map(|name| ServerName::try_from(name.as_ref()).ok());
        verify_server_name(&parsed, wanted.as_ref().unwrap_or(dialled))?;
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
