//! What the authority issues, judged by openssl and by us.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use leno_ca::{Authority, AuthorityPem, AuthorityProblem, Intermediate, IssueError, IssuedChain, Root};
use leno_identity::{
    KeyPair, SpiffeId, TrustDomain, VerifyError, WorkloadCertificate, control_plane_identity, csr_for,
    pem::encode_certificates, verify_peer,
};

use crate::world::{HOUR, Mesh, ago, ahead, certificate, cluster, domain_of, now, openssl};

#[test]
fn openssl_verifies_a_chain_strictly() {
    let mesh = Mesh::new("cluster.local");
    let directory = tempfile::tempdir().unwrap();
    write_chain(directory.path(), &issue(&mesh.authority, &mesh.id("cart"), HOUR));
    for purpose in ["sslserver", "sslclient"] {
        let arguments = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "roots.pem"];
        let files = ["-untrusted", "above.pem", "leaf.pem"];
        let verdict = openssl(directory.path(), &[&arguments[..], &files[..]].concat());
        assert_eq!(verdict.trim(), "leaf.pem: OK");
    }
}

#[test]
fn a_leaf_says_one_identity_and_nothing_more() {
    let mesh = Mesh::new("cluster.local");
    let directory = tempfile::tempdir().unwrap();
    write_chain(directory.path(), &issue(&mesh.authority, &mesh.id("cart"), HOUR));
    let text = openssl(directory.path(), &["x509", "-in", "leaf.pem", "-noout", "-text"]);
    assert_eq!(text.matches("URI:").count(), 1, "{text}");
    assert!(text.contains("URI:spiffe://cluster.local/ns/shop/sa/cart\n"), "{text}");
    assert!(!text.contains("DNS:"), "{text}");
    assert!(text.contains("CA:FALSE") && !text.contains("CA:TRUE"), "{text}");
    assert!(text.contains("Digital Signature\n"), "{text}");
    assert!(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"), "{text}");
}

#[test]
fn the_control_plane_has_its_identity_and_a_dns_name() {
    let mesh = Mesh::new("cluster.local");
    let key = KeyPair::generate().unwrap();
    let identity = control_plane_identity(&TrustDomain::default());
    let csr = csr_for(&key).unwrap();
    let issued = mesh.authority.issue_control_plane(&csr, &identity, &[], HOUR, now()).unwrap();
    let peer = verify_peer(&issued.chain, &mesh.trust(), now()).unwrap();
    assert_eq!(peer.spiffe_id.as_str(), "spiffe://cluster.local/ns/leno-system/sa/leno-control");
    let directory = tempfile::tempdir().unwrap();
    write_chain(directory.path(), &issued);
    let text = openssl(directory.path(), &["x509", "-in", "leaf.pem", "-noout", "-ext", "subjectAltName"]);
    assert!(text.contains("DNS:leno-control"), "{text}");
}

#[test]
fn a_leaf_is_dated_back_a_minute_and_lives_as_long_as_wished() {
    let mesh = Mesh::new("cluster.local");
    let at = now();
    let key = KeyPair::generate().unwrap();
    let wished = Duration::from_secs(20);
    let issued = mesh.authority.issue(&csr_for(&key).unwrap(), &mesh.id("cart"), wished, at).unwrap();
    let certificate = WorkloadCertificate::new(issued.chain, key).unwrap();
    assert_eq!(certificate.not_before().as_secs(), at.as_secs() - 60);
    assert_eq!(certificate.not_after().as_secs(), at.as_secs() + 20);
    assert_eq!(issued.not_after, certificate.not_after());
    for (jitter, seconds) in [(0.0, 8), (0.5, 10), (1.0, 12), (f64::NAN, 10), (9.0, 12)] {
        assert_eq!(certificate.renew_at(at, jitter).as_secs(), at.as_secs() + seconds, "{jitter}");
    }
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let mesh = Mesh::new("cluster.local");
    let issued = issue(&mesh.authority, &mesh.id("cart"), 100_000 * HOUR);
    assert_eq!(issued.not_after, mesh.authority.not_after());
    let key = KeyPair::generate().unwrap();
    let csr = csr_for(&key).unwrap();
    let late = mesh.authority.issue(&csr, &mesh.id("cart"), HOUR, ahead(24 * 366 * HOUR));
    assert!(matches!(late, Err(IssueError::AuthorityExpired { .. })), "{late:?}");
    let nothing = mesh.authority.issue(&csr, &mesh.id("cart"), Duration::ZERO, now());
    assert!(matches!(nothing, Err(IssueError::NoLifetime)), "{nothing:?}");
}

#[test]
fn an_authority_issues_for_workloads_of_its_own_domain_only() {
    let mesh = Mesh::new("cluster.local");
    let csr = csr_for(&KeyPair::generate().unwrap()).unwrap();
    let foreign = SpiffeId::parse("spiffe://other.org/ns/shop/sa/cart").unwrap();
    let refused = mesh.authority.issue(&csr, &foreign, HOUR, now());
    assert!(matches!(refused, Err(IssueError::ForeignTrustDomain { .. })), "{refused:?}");
    let domain = SpiffeId::parse("spiffe://cluster.local").unwrap();
    let refused = mesh.authority.issue(&csr, &domain, HOUR, now());
    assert!(matches!(refused, Err(IssueError::NoWorkload { .. })), "{refused:?}");
}

#[test]
fn serial_numbers_do_not_repeat() {
    let mesh = Mesh::new("cluster.local");
    let serials: BTreeSet<String> =
        (0..50).map(|_| certificate(&mesh.authority, &mesh.id("cart"), now()).serial().to_string()).collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn clusters_under_one_root_believe_each_other() {
    let mesh = Mesh::new("cluster.local");
    let east = cluster(&mesh.root, "east");
    let chain = issue(&east, &mesh.id("cart"), HOUR).chain;
    assert!(verify_peer(&chain, &mesh.trust(), now()).is_ok());
}

#[test]
fn a_chain_without_its_intermediate_is_not_believed() {
    let mesh = Mesh::new("cluster.local");
    let chain = issue(&mesh.authority, &mesh.id("cart"), HOUR).chain;
    let alone = verify_peer(&chain[..1], &mesh.trust(), now());
    assert!(matches!(alone, Err(VerifyError::UnknownCa { .. })), "{alone:?}");
}

#[test]
fn a_workload_s_key_cannot_issue() {
    let mesh = Mesh::new("cluster.local");
    let certificate = certificate(&mesh.authority, &mesh.id("cart"), now());
    let forged = AuthorityPem {
        ca_cert: certificate.chain_pem(),
        ca_key: certificate.key_pem(),
        cert_chain: certificate.chain_pem(),
        root_cert: mesh.root.certificate_pem(),
    };
    let refused = Authority::from_pem(&domain_of("cluster.local"), &forged, now());
    assert!(matches!(refused, Err(AuthorityProblem::Refused(_))), "{refused:?}");
}

#[test]
fn parts_that_do_not_belong_together_are_refused_when_loaded() {
    let (ours, theirs) = (intermediate(), intermediate());
    let mixed = AuthorityPem { ca_key: theirs.pem().ca_key.clone(), ..ours.pem().clone() };
    let refused = Authority::from_pem(&domain_of("cluster.local"), &mixed, now());
    assert!(matches!(refused, Err(AuthorityProblem::Refused(_))), "{refused:?}");
    let mixed = AuthorityPem { root_cert: theirs.pem().root_cert.clone(), ..ours.pem().clone() };
    let refused = Authority::from_pem(&domain_of("cluster.local"), &mixed, now());
    assert!(matches!(refused, Err(AuthorityProblem::Refused(_))), "{refused:?}");
}

#[test]
fn an_authority_survives_its_directory_with_closed_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let made = intermediate();
    let directory = tempfile::tempdir().unwrap();
    made.pem().write(directory.path()).unwrap();
    made.pem().write(directory.path()).unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    let read = AuthorityPem::read(directory.path()).unwrap();
    assert_eq!(*read.ca_key, *made.pem().ca_key);
    Authority::from_pem(&domain_of("cluster.local"), &read, now()).unwrap();
    assert!(AuthorityPem::read(&directory.path().join("nothing")).is_err());
}

#[test]
fn a_root_read_back_adds_a_cluster() {
    let domain = domain_of("cluster.local");
    let root = Root::generate(&domain, ago(HOUR)).unwrap();
    let again =
        Root::from_pem(&domain, root.certificate_pem().as_bytes(), root.key_pem().as_bytes()).unwrap();
    let added = Intermediate::issue_by(&again, "east", now()).unwrap().into_authority(now()).unwrap();
    assert_eq!(added.bundle(), &root.bundle().unwrap());
}

#[test]
fn istio_s_cacerts_made_by_openssl_are_put_to_work() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
                      subjectKeyIdentifier=hash\nsubjectAltName=DNS:istiod.istio-system.svc\n";
    fs::write(at.join("ca.ext"), extensions).unwrap();
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -days 10 -keyout root-key.pem -out root-cert.pem -subj /O=Istio/CN=Root",
        "req -new -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.csr -subj /O=Istio/L=west/CN=Intermediate",
        "x509 -req -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 5 -extfile ca.ext -out ca-cert.pem",
    ] {
        openssl(at, &arguments.split(' ').collect::<Vec<_>>());
    }
    let both = [fs::read(at.join("ca-cert.pem")).unwrap(), fs::read(at.join("root-cert.pem")).unwrap()];
    fs::write(at.join("cert-chain.pem"), both.concat()).unwrap();

    let pkcs8 = AuthorityPem::read(at).unwrap();
    openssl(at, &["rsa", "-traditional", "-in", "ca-key.pem", "-out", "ca-key.pem"]);
    let pkcs1 = AuthorityPem::read(at).unwrap();
    assert!(pkcs1.ca_key.contains("BEGIN RSA PRIVATE KEY"));
    for pem in [pkcs8, pkcs1] {
        let authority = Authority::from_pem(&domain_of("cluster.local"), &pem, now()).unwrap();
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        let issued = issue(&authority, &id, HOUR);
        assert_eq!(issued.chain.len(), 2, "leaf and intermediate, without root");
        write_chain(at, &issued);
        openssl(at, &["verify", "-CAfile", "roots.pem", "-untrusted", "above.pem", "leaf.pem"]);
    }
}

fn intermediate() -> Intermediate {
    let root = Root::generate(&domain_of("cluster.local"), ago(HOUR)).unwrap();
    Intermediate::issue_by(&root, "west", ago(HOUR)).unwrap()
}

fn issue(authority: &Authority, id: &SpiffeId, ttl: Duration) -> IssuedChain {
    let csr = csr_for(&KeyPair::generate().unwrap()).unwrap();
    authority.issue(&csr, id, ttl, now()).unwrap()
}

fn write_chain(directory: &Path, issued: &IssuedChain) {
    let write = |name: &str, text: String| fs::write(directory.join(name), text).unwrap();
    write("leaf.pem", encode_certificates(&issued.chain[..1]));
    write("above.pem", encode_certificates(&issued.chain[1..]));
    write("roots.pem", encode_certificates(&issued.roots));
}
