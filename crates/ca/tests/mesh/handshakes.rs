//! Handshakes between mesh configurations: who is known afterwards, and what each end says when one fails.

use std::sync::Arc;

use leno_identity::{
    ClientAuth, ExpectedPeers, HandshakeFailure, IdentityStore, Trust, VerifyError, client_config,
    peer_identity, server_config,
};
use rustls::{
    AlertDescription, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    pki_types::ServerName,
};

use crate::world::{HOUR, Mesh, Outcome, ago, ahead, certificate, cluster, handshake, now};

const ALPN: &[&[u8]] = &[b"leno-h2", b"leno-h1"];

#[test]
fn both_ends_know_each_other_over_hybrid_tls_13() {
    let mesh = Mesh::new("cluster.local");
    let outcome = meet(&mesh, &mesh.store("front"), &mesh.store("cart"));
    outcome.assert_established();
    assert_eq!(peer_identity(&outcome.client).unwrap().spiffe_id, mesh.id("cart"));
    assert_eq!(peer_identity(&outcome.server).unwrap().spiffe_id, mesh.id("front"));
    assert_eq!(outcome.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(outcome.client.alpn_protocol(), Some(&b"leno-h2"[..]));
    assert_eq!(outcome.server.server_name(), Some("cart.shop.svc"));
    let group = outcome.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn no_session_is_ever_resumed() {
    let mesh = Mesh::new("cluster.local");
    let server = server_config(&mesh.store("cart"), ClientAuth::Mandatory, ALPN);
    let client = client_config(&mesh.store("front"), &ExpectedPeers::new([mesh.id("cart")]), ALPN);
    for _ in 0..3 {
        let outcome = handshake(&client, &server, "cart.shop.svc");
        outcome.assert_established();
        assert_eq!(outcome.server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(outcome.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_client_that_meets_somebody_else_says_whom_it_expected() {
    let mesh = Mesh::new("cluster.local");
    let outcome =
        meet_expecting(&ExpectedPeers::new([mesh.id("cart")]), &mesh.store("front"), &mesh.store("spy"));
    let Some(failure @ HandshakeFailure::WrongIdentity(cause)) = &outcome.client_failure else {
        panic!("{:?}", outcome.client_failure)
    };
    assert!(matches!(cause, VerifyError::WrongIdentity { got, .. } if *got == mesh.id("spy")));
    let text = failure.to_string();
    assert!(text.contains("sa/cart") && text.contains("sa/spy"), "{text}");
    assert_eq!(
        outcome.server_failure,
        Some(HandshakeFailure::RefusedByPeer(AlertDescription::CertificateUnknown))
    );
}

#[test]
fn nobody_is_expected_means_nobody_is_accepted() {
    let mesh = Mesh::new("cluster.local");
    let outcome = meet_expecting(&ExpectedPeers::new([]), &mesh.store("front"), &mesh.store("cart"));
    assert_eq!(outcome.client_failure.unwrap().label(), "wrong_identity");
}

#[test]
fn a_server_of_another_domain_is_refused_until_its_bundle_is_there() {
    let (ours, theirs) = (Mesh::new("cluster.local"), Mesh::new("other.org"));
    let expected = ExpectedPeers::new([theirs.id("cart")]);
    let (front, cart) = (ours.store("front"), theirs.store("cart"));
    cart.set_trust(theirs.trust().with(ours.root.bundle().unwrap()));

    let refused = meet_expecting(&expected, &front, &cart);
    let failure = refused.client_failure.unwrap();
    assert!(
        matches!(failure, HandshakeFailure::UnknownCa(VerifyError::UnknownTrustDomain { .. })),
        "{failure:?}"
    );
    assert!(failure.to_string().contains("other.org"), "{failure}");

    front.set_trust(ours.trust().with(theirs.root.bundle().unwrap()));
    meet_expecting(&expected, &front, &cart).assert_established();
}

#[test]
fn a_client_of_another_root_is_refused_by_the_server_and_learns_it() {
    let (ours, theirs) = (Mesh::new("cluster.local"), Mesh::new("cluster.local"));
    let front = theirs.store("front");
    front.set_trust(ours.trust());
    let outcome = meet(&ours, &front, &ours.store("cart"));
    let failure = outcome.server_failure.unwrap();
    assert!(matches!(failure, HandshakeFailure::UnknownCa(VerifyError::UnknownCa { .. })), "{failure:?}");
    assert_eq!(outcome.client_failure.unwrap().label(), "refused_by_peer");
}

#[test]
fn with_an_intermediate_as_root_another_cluster_is_refused_until_added() {
    let mesh = Mesh::new("cluster.local");
    let (west, east) = (&mesh.authority, cluster(&mesh.root, "east"));
    let anchored = |authorities: &[&leno_ca::Authority]| {
        let roots = authorities
            .iter()
            .map(|authority| certificate(authority, &mesh.id("probe"), now()).chain()[1].to_vec());
        Trust::new([leno_identity::TrustBundle::from_der(west.domain().clone(), roots).unwrap()])
    };
    let cart = IdentityStore::with_certificate(mesh.trust(), certificate(&east, &mesh.id("cart"), now()));
    let front = mesh.store("front");
    front.set_trust(anchored(&[west]));
    assert_eq!(meet(&mesh, &front, &cart).client_failure.unwrap().label(), "unknown_ca");
    front.set_trust(anchored(&[west, &east]));
    meet(&mesh, &front, &cart).assert_established();
}

#[test]
fn certificates_outside_their_time_are_told_apart_on_both_ends() {
    let mesh = Mesh::new("cluster.local");
    let at = |issued, account| {
        IdentityStore::with_certificate(mesh.trust(), certificate(&mesh.authority, &mesh.id(account), issued))
    };
    let alert = HandshakeFailure::RefusedByPeer(AlertDescription::CertificateExpired);

    let old_server = meet(&mesh, &mesh.store("front"), &at(ago(2 * HOUR), "cart"));
    let Some(HandshakeFailure::Expired { late }) = old_server.client_failure else {
        panic!("{:?}", old_server.client_failure)
    };
    assert!(late >= HOUR && late < HOUR * 2, "{late:?}");
    assert_eq!(old_server.server_failure, Some(alert.clone()));

    let old_client = meet(&mesh, &at(ago(2 * HOUR), "front"), &mesh.store("cart"));
    assert_eq!(old_client.server_failure.unwrap().label(), "expired");
    assert_eq!(old_client.client_failure, Some(alert));

    let early_server = meet(&mesh, &mesh.store("front"), &at(ahead(HOUR), "cart"));
    assert_eq!(early_server.client_failure.unwrap().label(), "not_yet_valid");
}

#[test]
fn a_client_without_certificate_is_refused_where_one_is_mandatory() {
    let mesh = Mesh::new("cluster.local");
    let outcome = meet(&mesh, &IdentityStore::new(mesh.trust()), &mesh.store("cart"));
    assert_eq!(outcome.server_failure, Some(HandshakeFailure::NoCertificate));
    assert_eq!(outcome.client_failure, Some(HandshakeFailure::PeerWantsCertificate));
}

#[test]
fn a_joining_client_without_certificate_is_let_in_where_one_is_optional() {
    let mesh = Mesh::new("cluster.local");
    let server = server_config(&mesh.store("cart"), ClientAuth::Optional, &[b"h2"]);
    let expected = ExpectedPeers::new([mesh.id("cart")]);
    let joining = client_config(&IdentityStore::new(mesh.trust()), &expected, &[b"h2"]);
    let outcome = handshake(&joining, &server, "leno-control");
    outcome.assert_established();
    assert_eq!(peer_identity(&outcome.server), None);

    let stranger = Mesh::new("cluster.local").store("front");
    stranger.set_trust(mesh.trust());
    let outcome = handshake(&client_config(&stranger, &expected, &[b"h2"]), &server, "leno-control");
    assert_eq!(outcome.server_failure.unwrap().label(), "unknown_ca", "optional is not unchecked");
}

#[test]
fn a_server_without_certificate_says_so() {
    let mesh = Mesh::new("cluster.local");
    let outcome = meet(&mesh, &mesh.store("front"), &IdentityStore::new(mesh.trust()));
    assert_eq!(outcome.server_failure, Some(HandshakeFailure::NoOwnCertificate));
    assert!(outcome.client_failure.is_some());
}

#[test]
fn no_common_protocol_is_named_on_both_ends() {
    let mesh = Mesh::new("cluster.local");
    let server = server_config(&mesh.store("cart"), ClientAuth::Mandatory, &[b"leno-tcp"]);
    let client = client_config(&mesh.store("front"), &ExpectedPeers::new([mesh.id("cart")]), &[b"h2"]);
    let outcome = handshake(&client, &server, "cart.shop.svc");
    assert_eq!(outcome.server_failure, Some(HandshakeFailure::NoCommonAlpn));
    assert_eq!(outcome.client_failure, Some(HandshakeFailure::NoCommonAlpn));
}

#[test]
fn plaintext_from_the_peer_is_named() {
    let mesh = Mesh::new("cluster.local");
    let config = client_config(&mesh.store("front"), &ExpectedPeers::new([mesh.id("cart")]), ALPN);
    let name = ServerName::try_from("cart.shop.svc").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    client.read_tls(&mut &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]).unwrap();
    let problem = client.process_new_packets().unwrap_err();
    assert_eq!(HandshakeFailure::from(&problem), HandshakeFailure::PeerPlaintext);

    let mut server =
        ServerConnection::new(server_config(&mesh.store("cart"), ClientAuth::Mandatory, ALPN)).unwrap();
    server.read_tls(&mut &b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n"[..]).unwrap();
    let problem = server.process_new_packets().unwrap_err();
    assert_eq!(HandshakeFailure::from(&problem), HandshakeFailure::PeerPlaintext);
}

#[test]
fn tls_12_is_not_spoken_inside_the_mesh() {
    let mesh = Mesh::new("cluster.local");
    let server = server_config(&mesh.store("cart"), ClientAuth::Optional, &[]);
    let old = rustls::ClientConfig::builder_with_provider(leno_identity::provider::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let outcome = handshake(&Arc::new(old), &server, "cart.shop.svc");
    assert_eq!(outcome.server_failure.unwrap().label(), "no_common_parameters");
    assert_eq!(outcome.client_failure.unwrap().label(), "no_common_parameters");
}

fn meet(mesh: &Mesh, client: &Arc<IdentityStore>, server: &Arc<IdentityStore>) -> Outcome {
    meet_expecting(&ExpectedPeers::new([mesh.id("cart")]), client, server)
}

fn meet_expecting(
    expected: &ExpectedPeers,
    client: &Arc<IdentityStore>,
    server: &Arc<IdentityStore>,
) -> Outcome {
    let server = server_config(server, ClientAuth::Mandatory, ALPN);
    handshake(&client_config(client, expected, ALPN), &server, "cart.shop.svc")
}
