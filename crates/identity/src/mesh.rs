//! rustls configurations between proxies, and between proxies and control planes.
//!
//! Invariant: TLS 1.3 only; no tickets, no resumption, no early data: a resumed session would carry the old certificate unverified.
//! A configuration reads the store and the expected peers at each handshake, so it is built once per (service, ALPN) and kept.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    expected::ExpectedPeers,
    provider::provider,
    store::IdentityStore,
    verify::{PeerIdentity, VerifyError, verify_presented},
};

/// What a server asks of its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAuth {
    /// A certificate of a trusted domain (mesh port).
    Mandatory,
    /// The same, or none at all: a proxy that joins with a token has none yet (control plane).
    Optional,
}

/// A server in the mesh: shows the store's certificate and knows its clients by [`crate::peer_identity`].
pub fn server_config(store: &Arc<IdentityStore>, clients: ClientAuth, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let verifier = PeerVerifier { store: Arc::clone(store), expected: None, clients };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(store) as _);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// A client in the mesh: accepts a server only when it is one of `expected`, whatever name it was dialled by.
pub fn client_config(
    store: &Arc<IdentityStore>,
    expected: &ExpectedPeers,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let verifier = PeerVerifier {
        store: Arc::clone(store),
        expected: Some(expected.clone()),
        clients: ClientAuth::Mandatory,
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::clone(store) as _);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct PeerVerifier {
    store: Arc<IdentityStore>,
    /// `None`: any identity of a trusted domain.
    expected: Option<ExpectedPeers>,
    clients: ClientAuth,
}

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, VerifyError> {
        let peer = verify_presented(leaf, intermediates, &self.store.trust(), now)?;
        if let Some(expected) = &self.expected {
            expected.check(&peer.spiffe_id)?;
        }
        Ok(peer)
    }
}

/// Our causes in rustls' error, so that [`crate::HandshakeFailure`] finds them again; the peer gets `certificate_unknown`.
/// Only what the peer itself can act on goes out as its own alert: time.
fn refused(cause: VerifyError) -> Error {
    Error::InvalidCertificate(match cause {
        VerifyError::Expired { not_after, now, .. } => {
            CertificateError::ExpiredContext { time: now, not_after }
        }
        VerifyError::NotYetValid { not_before, now, .. } => {
            CertificateError::NotValidYetContext { time: now, not_before }
        }
        cause => CertificateError::Other(OtherError(Arc::new(cause))),
    })
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now).map_err(refused)?;
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

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientAuth::Mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one certificate and shows it; hints would only tell strangers whom we trust.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
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
