//! Requests of other tools, and requests that ask for too much.

use std::fs;

use leno_ca::{CsrProblem, csr::public_key};
use leno_identity::{CsrDer, KeyPair, csr_for, key::csr_naming, leaf::Leaf, verify_peer};

use crate::world::{HOUR, Mesh, now, openssl};

const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[test]
fn a_request_of_openssl_with_extensions_nobody_knows_is_accepted() {
    let mesh = Mesh::new("cluster.local");
    let extensions =
        ["subjectKeyIdentifier=hash", "tlsfeature=status_request", "1.2.3.4.5=ASN1:UTF8String:x"];
    for keys in [P256, &["-newkey", "rsa:2048"], &["-newkey", "ed25519"]] {
        let csr = request(keys, &extensions);
        let issued = mesh.authority.issue(&csr, &mesh.id("cart"), HOUR, now()).unwrap();
        let peer = verify_peer(&issued.chain, &mesh.trust(), now()).unwrap();
        assert_eq!(peer.spiffe_id, mesh.id("cart"));
    }
}

#[test]
fn a_request_gets_what_was_authenticated_whatever_it_asks_for() {
    let mesh = Mesh::new("cluster.local");
    let csr = request(
        P256,
        &[
            "subjectAltName=URI:spiffe://cluster.local/ns/shop/sa/admin,DNS:bank.example.com",
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign",
            "extendedKeyUsage=codeSigning",
        ],
    );
    let issued = mesh.authority.issue(&csr, &mesh.id("cart"), HOUR, now()).unwrap();
    assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().spiffe_id, mesh.id("cart"));
    assert!(verify_peer(&issued.chain, &mesh.trust(), now()).is_ok());
    let text = describe(&issued.chain[0]);
    for asked in ["admin", "bank.example.com", "CA:TRUE", "Certificate Sign", "Code Signing"] {
        assert!(!text.contains(asked), "{asked} in {text}");
    }
}

#[test]
fn our_own_request_naming_an_identity_is_read_by_openssl_and_not_believed() {
    let mesh = Mesh::new("cluster.local");
    let csr = csr_naming(&KeyPair::generate().unwrap(), &mesh.id("admin")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("csr.der"), csr.as_bytes()).unwrap();
    let arguments = ["req", "-inform", "DER", "-in", "csr.der", "-verify", "-noout", "-text"];
    assert!(openssl(directory.path(), &arguments).contains("sa/admin"));
    let issued = mesh.authority.issue(&csr, &mesh.id("cart"), HOUR, now()).unwrap();
    assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().spiffe_id, mesh.id("cart"));
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let good = csr_for(&KeyPair::generate().unwrap()).unwrap();
    let mut bytes = good.into_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(public_key(&CsrDer::from_bytes(bytes)), Err(CsrProblem::Signature));
}

#[test]
fn malformed_and_oversized_requests_are_refused() {
    let good = csr_for(&KeyPair::generate().unwrap()).unwrap().into_bytes();
    for length in 0..good.len() {
        let cut = CsrDer::from_bytes(good[..length].to_vec());
        assert_eq!(public_key(&cut), Err(CsrProblem::Malformed), "{length}");
    }
    let trailing = CsrDer::from_bytes([&good[..], &[0]].concat());
    assert_eq!(public_key(&trailing), Err(CsrProblem::Malformed));
    let huge = CsrDer::from_bytes(vec![0x30; 20_000]);
    assert_eq!(public_key(&huge), Err(CsrProblem::TooLarge { length: 20_000 }));
}

#[test]
fn weak_and_unusual_keys_are_refused() {
    for keys in [&["-newkey", "rsa:1024"][..], &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]]
    {
        assert_eq!(public_key(&request(keys, &[])), Err(CsrProblem::Key), "{keys:?}");
    }
}

fn request(keys: &[&str], extensions: &[&str]) -> CsrDer {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = vec!["req", "-new", "-nodes", "-keyout", "key.pem", "-subj", "/O=somebody/CN=else"];
    arguments.extend(["-outform", "DER", "-out", "csr.der"]);
    arguments.extend(keys);
    for extension in extensions {
        arguments.extend(["-addext", extension]);
    }
    openssl(directory.path(), &arguments);
    CsrDer::from_bytes(fs::read(directory.path().join("csr.der")).unwrap())
}

fn describe(certificate: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("leaf.der"), certificate).unwrap();
    openssl(directory.path(), &["x509", "-inform", "DER", "-in", "leaf.der", "-noout", "-text"])
}
