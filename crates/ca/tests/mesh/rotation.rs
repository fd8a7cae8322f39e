//! Changes under configurations that exist already.

use std::sync::Arc;

use leno_identity::{
    ClientAuth, ExpectedPeers, IdentityStore, Trust, WorkloadCertificate, client_config, peer_identity,
    server_config,
};

use crate::world::{Mesh, certificate, handshake, now};

#[test]
fn renewed_certificates_are_used_by_the_next_handshake_of_the_same_configurations() {
    let mesh = Mesh::new("cluster.local");
    let (front, cart) = (mesh.store("front"), mesh.store("cart"));
    let client = client_config(&front, &ExpectedPeers::new([mesh.id("cart")]), &[]);
    let server = server_config(&cart, ClientAuth::Mandatory, &[]);
    let before = handshake(&client, &server, "cart");
    assert_eq!(seen_by_client(&before), serial(&cart));
    assert_eq!(seen_by_server(&before), serial(&front));

    let (old_cart, old_front) = (serial(&cart), serial(&front));
    cart.set_certificate(certificate(&mesh.authority, &mesh.id("cart"), now()));
    front.set_certificate(certificate(&mesh.authority, &mesh.id("front"), now()));
    let after = handshake(&client, &server, "cart");
    assert_eq!(seen_by_client(&after), serial(&cart));
    assert_eq!(seen_by_server(&after), serial(&front));
    assert_ne!(serial(&cart), old_cart);
    assert_ne!(serial(&front), old_front);
}

#[test]
fn a_certificate_that_arrives_later_is_shown_by_a_client_that_joined_without() {
    let mesh = Mesh::new("cluster.local");
    let front = IdentityStore::new(mesh.trust());
    let client = client_config(&front, &ExpectedPeers::new([mesh.id("cart")]), &[]);
    let server = server_config(&mesh.store("cart"), ClientAuth::Optional, &[]);
    assert_eq!(peer_identity(&handshake(&client, &server, "cart").server), None);
    front.set_certificate(certificate(&mesh.authority, &mesh.id("front"), now()));
    let identified = handshake(&client, &server, "cart");
    assert_eq!(peer_identity(&identified.server).unwrap().spiffe_id, mesh.id("front"));
}

#[test]
fn a_root_is_replaced_without_a_refused_handshake() {
    let (old, new) = (Mesh::new("cluster.local"), Mesh::new("cluster.local"));
    let (front, cart) = (old.store("front"), old.store("cart"));
    let client = client_config(&front, &ExpectedPeers::new([old.id("cart")]), &[]);
    let server = server_config(&cart, ClientAuth::Mandatory, &[]);
    let both = {
        let roots = [&old, &new].map(|mesh| mesh.root.bundle().unwrap().roots()[0].to_vec());
        let bundle = leno_identity::TrustBundle::from_der(old.authority.domain().clone(), roots).unwrap();
        Trust::new([bundle])
    };
    let steps: [&dyn Fn(); 5] = [
        &|| front.set_trust(both.clone()),
        &|| cart.set_trust(both.clone()),
        &|| cart.set_certificate(certificate(&new.authority, &new.id("cart"), now())),
        &|| front.set_certificate(certificate(&new.authority, &new.id("front"), now())),
        &|| [&front, &cart].iter().for_each(|store| store.set_trust(new.trust())),
    ];
    for step in steps {
        step();
        handshake(&client, &server, "cart").assert_established();
    }
    cart.set_certificate(certificate(&old.authority, &old.id("cart"), now()));
    assert!(!handshake(&client, &server, "cart").is_established(), "the old root is gone");
}

#[test]
fn a_change_of_the_expected_identities_holds_for_the_same_configuration() {
    let mesh = Mesh::new("cluster.local");
    let expected = ExpectedPeers::new([mesh.id("cart")]);
    let client = client_config(&mesh.store("front"), &expected, &[]);
    let server = server_config(&mesh.store("cart-v2"), ClientAuth::Mandatory, &[]);
    assert!(!handshake(&client, &server, "cart").is_established());
    expected.set([mesh.id("cart"), mesh.id("cart-v2")]);
    handshake(&client, &server, "cart").assert_established();
    assert!(expected.allows(&mesh.id("cart-v2")));
    expected.set([]);
    assert!(!handshake(&client, &server, "cart").is_established());
}

#[test]
fn a_certificate_survives_its_state_directory() {
    let mesh = Mesh::new("cluster.local");
    let before = certificate(&mesh.authority, &mesh.id("cart"), now());
    let after =
        WorkloadCertificate::from_pem(before.chain_pem().as_bytes(), before.key_pem().as_bytes()).unwrap();
    assert_eq!(after.serial(), before.serial());
    assert!(after.is_valid_at(now()));
    let other = certificate(&mesh.authority, &mesh.id("cart"), now());
    let mixed = WorkloadCertificate::from_pem(before.chain_pem().as_bytes(), other.key_pem().as_bytes());
    assert!(mixed.is_err(), "a key of another certificate");
    assert!(!format!("{after:?}").contains("PRIVATE"));
}

fn serial(store: &Arc<IdentityStore>) -> String {
    store.certificate().unwrap().serial().to_string()
}

fn seen_by_client(outcome: &crate::world::Outcome) -> String {
    peer_identity(&outcome.client).unwrap().serial.to_string()
}

fn seen_by_server(outcome: &crate::world::Outcome) -> String {
    outcome.assert_established();
    peer_identity(&outcome.server).unwrap().serial.to_string()
}
