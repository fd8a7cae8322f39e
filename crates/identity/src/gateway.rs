//! rustls configurations for clients outside the mesh: ordinary server certificates chosen by SNI.
//!
//! Invariant: a name that no certificate covers gets no handshake, never another name's certificate; a client without SNI gets only
//! what is for any host. Must not know: listeners and routes.

use std::{fmt, sync::Arc};

use leno_model::gateway::HostPattern;
use rustls::{
    RootCertStore, ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::{
    pem::{self, PemProblem},
    provider::provider,
};

/// An ordinary certificate with its key, for the hosts of one listener.
#[derive(Clone)]
pub struct ServerCertificate {
    hosts: HostPattern,
    certified: Arc<CertifiedKey>,
}

/// The lowest version that a gateway accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MinimumVersion {
    /// TLS 1.2, the default of Istio and Gateway API.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Why certificates from a user's Secret or file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsConfigError {
    /// The chain is bad.
    #[error("the certificate (tls.crt) cannot be used: {0}")]
    Chain(PemProblem),
    /// The key is bad.
    #[error("the private key (tls.key) is missing, malformed or of an unsupported kind")]
    Key,
    /// Key and certificate do not belong together.
    #[error("the private key (tls.key) does not belong to the certificate (tls.crt)")]
    OtherKey,
    /// Authorities are bad.
    #[error("the authorities (ca.crt) cannot be used: {0}")]
    Authorities(PemProblem),
    /// An authority is malformed.
    #[error("certificate {position} of the authorities (ca.crt) is malformed")]
    Authority {
        /// Counted from 1.
        position: usize,
    },
    /// rustls refuses the combination.
    #[error("the TLS settings cannot be used: {0}")]
    Refused(String),
}

/// Reads a chain and a key, of any kind that rustls knows.
///
/// # Errors
/// When one is bad or they do not belong together.
pub fn certified_key(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsConfigError> {
    let chain = pem::certificates(chain).map_err(TlsConfigError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsConfigError::Key)?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsConfigError::OtherKey),
        Err(rustls::Error::InvalidCertificate(_)) => {
            Err(TlsConfigError::Chain(PemProblem::Malformed("it is not an X.509 certificate".into())))
        }
        Err(_) => Err(TlsConfigError::Key),
    }
}

impl ServerCertificate {
    /// From PEM, for these hosts.
    ///
    /// # Errors
    /// As [`certified_key`].
    pub fn from_pem(hosts: HostPattern, chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        Ok(Self { hosts, certified: certified_key(chain, key)? })
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCertificate({})", self.hosts)
    }
}

/// A server for clients outside the mesh. `client_ca` (PEM) makes client certificates mandatory (Istio MUTUAL).
///
/// # Errors
/// When an authority is bad.
pub fn gateway_server_config(
    certificates: Vec<ServerCertificate>,
    minimum: MinimumVersion,
    client_ca: Option<&[u8]>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let refused = |problem: rustls::Error| TlsConfigError::Refused(problem.to_string());
    let versions: &[_] = match minimum {
        MinimumVersion::Tls12 => &[&TLS13, &TLS12],
        MinimumVersion::Tls13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).map_err(refused)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let roots = Arc::new(root_store(authorities)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier = verifier.map_err(|problem| TlsConfigError::Refused(problem.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni::new(certificates)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would keep a certificate and a client identity beyond a change of the Secret.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Authorities from PEM.
pub(crate) fn root_store(authorities: &[u8]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    let authorities = pem::certificates(authorities).map_err(TlsConfigError::Authorities)?;
    for (position, authority) in (1..).zip(authorities) {
        roots.add(authority).map_err(|_| TlsConfigError::Authority { position })?;
    }
    Ok(roots)
}

/// Chooses by the name that the client asks for: most specific first, then the first whose key the client can check.
#[derive(Debug)]
struct BySni {
    // Invariant: most specific hosts first; equal ones in the order given.
    certificates: Vec<ServerCertificate>,
}

impl BySni {
    fn new(mut certificates: Vec<ServerCertificate>) -> Self {
        certificates.sort_by_key(|certificate| std::cmp::Reverse(certificate.hosts.specificity()));
        Self { certificates }
    }

    /// The certificates of the most specific pattern that covers a name.
    fn covering(&self, name: Option<&str>) -> impl Iterator<Item = &ServerCertificate> {
        let name = name.map(str::to_ascii_lowercase);
        let covers = move |hosts: &HostPattern| match &name {
            Some(name) => hosts.matches(name),
            None => *hosts == HostPattern::Any,
        };
        let first = self.certificates.iter().find(|certificate| covers(&certificate.hosts));
        let hosts = first.map(|certificate| &certificate.hosts);
        self.certificates.iter().filter(move |certificate| Some(&certificate.hosts) == hosts)
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let usable =
            |certificate: &&ServerCertificate| certificate.certified.key.choose_scheme(schemes).is_some();
        self.covering(hello.server_name()).find(usable).map(|certificate| Arc::clone(&certificate.certified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_certificate_answers_and_a_stranger_gets_none() {
        let resolver = BySni::new(vec![
            certificate("*.example.com"),
            certificate("shop.example.com"),
            certificate("*.a.example.com"),
        ]);
        let chosen = |name| resolver.covering(name).map(|found| found.hosts.to_string()).collect::<Vec<_>>();
        assert_eq!(chosen(Some("Shop.example.com")), ["shop.example.com"]);
        assert_eq!(chosen(Some("x.a.example.com")), ["*.a.example.com"]);
        assert_eq!(chosen(Some("y.example.com")), ["*.example.com"]);
        assert!(chosen(Some("example.org")).is_empty());
        assert!(chosen(None).is_empty());
    }

    #[test]
    fn two_certificates_for_one_host_are_both_candidates() {
        let resolver = BySni::new(vec![certificate("a.test"), certificate("*"), certificate("a.test")]);
        assert_eq!(resolver.covering(Some("a.test")).count(), 2);
        assert_eq!(resolver.covering(None).count(), 1);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (chain, _) = self_signed("a.test");
        let (_, key) = self_signed("a.test");
        let problem = certified_key(chain.as_bytes(), key.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(problem, TlsConfigError::OtherKey);
        assert_eq!(certified_key(chain.as_bytes(), b"").map(|_| ()).unwrap_err(), TlsConfigError::Key);
    }

    fn certificate(hosts: &str) -> ServerCertificate {
        let (chain, key) = self_signed("any.test");
        ServerCertificate::from_pem(HostPattern::parse(hosts), chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn self_signed(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }
}
