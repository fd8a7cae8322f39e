//! TLS with the world outside: gateways, origination, and ordinary clients of the control plane.

use std::sync::Arc;

use leno_identity::{
    ClientAuth, HandshakeFailure, IdentityStore, KeyPair, MinimumVersion, PlainTrust, ServerCertificate,
    TlsConfigError, TrustDomain, WorkloadCertificate, control_plane_identity, csr_for,
    gateway::certified_key, gateway_server_config, plain_client_config, server_config,
};
use leno_model::gateway::HostPattern;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as OutsideKey};
use rustls::{ClientConfig, ProtocolVersion};

use crate::world::{HOUR, Mesh, handshake, now};

const WEB: &[&[u8]] = &[b"h2", b"http/1.1"];

#[test]
fn a_gateway_shows_the_certificate_of_the_name_asked_for() {
    let outside = Outside::new();
    let certificates = vec![outside.server("*.example.com"), outside.server("shop.example.com")];
    let gateway = gateway_server_config(certificates, MinimumVersion::Tls12, None, WEB).unwrap();
    let client = plain_client_config(outside.trust(), &[], None, WEB).unwrap();
    for name in ["shop.example.com", "other.example.com"] {
        let outcome = handshake(&client, &gateway, name);
        outcome.assert_established();
        assert_eq!(outcome.client.alpn_protocol(), Some(&b"h2"[..]));
    }
    let stranger = handshake(&client, &gateway, "example.org");
    assert_eq!(stranger.server_failure, Some(HandshakeFailure::NoOwnCertificate));
}

#[test]
fn a_gateway_keeps_its_lowest_version() {
    let outside = Outside::new();
    let old = outside.tls12_client();
    for (minimum, spoken) in [(MinimumVersion::Tls12, true), (MinimumVersion::Tls13, false)] {
        let certificates = vec![outside.server("shop.example.com")];
        let gateway = gateway_server_config(certificates, minimum, None, &[]).unwrap();
        let outcome = handshake(&old, &gateway, "shop.example.com");
        assert_eq!(outcome.is_established(), spoken, "{minimum:?}");
        if spoken {
            assert_eq!(outcome.client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        }
    }
}

#[test]
fn a_mutual_gateway_lets_in_only_clients_of_its_authority() {
    let (outside, other) = (Outside::new(), Outside::new());
    let certificates = vec![outside.server("shop.example.com")];
    let ca = outside.authority.clone();
    let gateway =
        gateway_server_config(certificates, MinimumVersion::Tls12, Some(ca.as_bytes()), &[]).unwrap();
    let connect = |own| {
        let client = plain_client_config(outside.trust(), &[], own, &[]).unwrap();
        handshake(&client, &gateway, "shop.example.com")
    };
    connect(Some(outside.certified("client.example.com"))).assert_established();
    assert_eq!(connect(None).server_failure, Some(HandshakeFailure::NoCertificate));
    let foreign = connect(Some(other.certified("client.example.com")));
    assert_eq!(foreign.server_failure.unwrap().label(), "bad_outside_certificate");
}

#[test]
fn origination_believes_only_the_named_server_of_the_named_authority() {
    let (outside, other) = (Outside::new(), Outside::new());
    let server = gateway_server_config(
        vec![
            ServerCertificate::from_pem(
                HostPattern::Any,
                &outside.chain("api.example.com").0,
                &outside.key_pem(),
            )
            .unwrap(),
        ],
        MinimumVersion::Tls13,
        None,
        &[],
    )
    .unwrap();
    let connect = |trust: PlainTrust<'_>, names: &[&str], dialled| {
        let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
        handshake(&plain_client_config(trust, &names, None, &[]).unwrap(), &server, dialled).client_failure
    };
    assert_eq!(connect(outside.trust(), &[], "api.example.com"), None);
    assert_eq!(connect(outside.trust(), &["no.example.com", "api.example.com"], "10.0.0.1"), None);
    assert_eq!(connect(outside.trust(), &[], "evil.example.com").unwrap().label(), "wrong_name");
    assert_eq!(
        connect(outside.trust(), &["no.example.com"], "api.example.com").unwrap().label(),
        "wrong_name"
    );
    assert_eq!(connect(other.trust(), &[], "api.example.com").unwrap().label(), "bad_outside_certificate");
    assert_eq!(
        connect(other.trust(), &["api.example.com"], "api.example.com").unwrap().label(),
        "bad_outside_certificate"
    );
    assert_eq!(connect(PlainTrust::Unverified, &[], "anything.test"), None);
}

#[test]
fn an_ordinary_client_reaches_the_control_plane_by_its_dns_name() {
    let mesh = Mesh::new("cluster.local");
    let key = KeyPair::generate().unwrap();
    let identity = control_plane_identity(&TrustDomain::default());
    let csr = csr_for(&key).unwrap();
    let issued = mesh.authority.issue_control_plane(&csr, &identity, &[], HOUR, now()).unwrap();
    let certificate = WorkloadCertificate::new(issued.chain, key).unwrap();
    let store = IdentityStore::with_certificate(mesh.trust(), certificate);
    let server = server_config(&store, ClientAuth::Optional, &[b"h2"]);
    let roots = mesh.root.certificate_pem();
    let client = plain_client_config(PlainTrust::Authorities(roots.as_bytes()), &[], None, &[b"h2"]).unwrap();
    handshake(&client, &server, "leno-control").assert_established();

    let uri: Arc<str> = "spiffe://cluster.local/ns/leno-system/sa/leno-control".into();
    let by_uri =
        plain_client_config(PlainTrust::Authorities(roots.as_bytes()), &[uri], None, &[b"h2"]).unwrap();
    handshake(&by_uri, &server, "127.0.0.1").assert_established();
}

#[test]
fn authorities_that_are_none_are_refused() {
    let problem = plain_client_config(PlainTrust::Authorities(b"nothing"), &[], None, &[]).map(|_| ());
    assert!(matches!(problem, Err(TlsConfigError::Authorities(_))), "{problem:?}");
}

/// An authority that has nothing to do with the mesh.
struct Outside {
    issuer: Issuer<'static, OutsideKey>,
    authority: String,
    key: OutsideKey,
}

impl Outside {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signer = OutsideKey::generate().unwrap();
        let authority = params.self_signed(&signer).unwrap().pem();
        Self { issuer: Issuer::new(params, signer), authority, key: OutsideKey::generate().unwrap() }
    }

    fn trust(&self) -> PlainTrust<'_> {
        PlainTrust::Authorities(self.authority.as_bytes())
    }

    fn chain(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&self.key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), self.key_pem())
    }

    fn key_pem(&self) -> Vec<u8> {
        self.key.serialize_pem().into_bytes()
    }

    fn certified(&self, name: &str) -> Arc<rustls::sign::CertifiedKey> {
        let (chain, key) = self.chain(name);
        certified_key(&chain, &key).unwrap()
    }

    fn server(&self, name: &str) -> ServerCertificate {
        let (chain, key) = self.chain(name);
        ServerCertificate::from_pem(HostPattern::parse(name), &chain, &key).unwrap()
    }

    fn tls12_client(&self) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in leno_identity::pem::certificates(self.authority.as_bytes()).unwrap() {
            roots.add(authority).unwrap();
        }
        let config = ClientConfig::builder_with_provider(leno_identity::provider::provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}
