//! Leaves that break one rule each, and bytes that are no certificates.

use std::time::Duration;

use leno_model::identity::TrustDomain;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use super::*;
use crate::key::KeyPair;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[test]
fn a_good_leaf_is_believed_and_described() {
    let peer = verify(|_| {}).unwrap();
    assert_eq!(peer.spiffe_id.as_str(), ID);
    assert!(!peer.is_expired(now()));
    assert_ne!(peer.fingerprint, [0; 32]);
}

#[test]
fn no_certificate_and_too_many_are_told_apart() {
    let mesh = Mesh::new("root");
    assert_eq!(verify_peer(&[], &mesh.trust, now()), Err(VerifyError::NoCertificate));
    let leaf = mesh.leaf(|_| {});
    let chain = vec![leaf; MAX_CHAIN + 1];
    assert_eq!(verify_peer(&chain, &mesh.trust, now()), Err(VerifyError::ChainTooLong { length: 9 }));
}

#[test]
fn exactly_one_uri_name_is_asked_for() {
    assert_eq!(verify(|leaf| leaf.subject_alt_names.clear()), Err(VerifyError::NoSpiffeId));
    let two = verify(|leaf| leaf.subject_alt_names.push(uri("spiffe://cluster.local/ns/shop/sa/admin")));
    assert!(matches!(two, Err(VerifyError::SeveralUris { count: 2, .. })), "{two:?}");
    let dns_beside = verify(|leaf| leaf.subject_alt_names.push(SanType::DnsName("x".try_into().unwrap())));
    assert!(dns_beside.is_ok(), "{dns_beside:?}");
}

#[test]
fn the_uri_name_is_a_workload_s_spiffe_id() {
    let web = verify(|leaf| leaf.subject_alt_names = vec![uri("https://cluster.local/a")]);
    assert!(matches!(web, Err(VerifyError::InvalidSpiffeId { .. })), "{web:?}");
    let domain = verify(|leaf| leaf.subject_alt_names = vec![uri("spiffe://cluster.local")]);
    assert!(matches!(domain, Err(VerifyError::NoWorkload { .. })), "{domain:?}");
}

#[test]
fn an_authority_s_certificate_is_no_workload_s() {
    let result = verify(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(matches!(result, Err(VerifyError::LeafIsAuthority { .. })), "{result:?}");
}

#[test]
fn usages_that_a_workload_must_not_have_are_refused() {
    for usages in [
        vec![],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
    ] {
        let result = verify(|leaf| leaf.key_usages = usages);
        assert!(matches!(result, Err(VerifyError::KeyUsage { .. })), "{result:?}");
    }
    let client_only = verify(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert!(matches!(client_only, Err(VerifyError::ExtendedKeyUsage { .. })), "{client_only:?}");
    assert!(verify(|leaf| leaf.extended_key_usages.clear()).is_ok());
}

#[test]
fn time_outside_the_certificate_is_refused_with_the_moment() {
    let mesh = Mesh::new("root");
    let chain = [mesh.leaf(|_| {})];
    let late = verify_peer(&chain, &mesh.trust, at(2031));
    assert!(matches!(late, Err(VerifyError::Expired { not_after, .. }) if not_after == at(2030)), "{late:?}");
    let early = verify_peer(&chain, &mesh.trust, at(2019));
    assert!(matches!(early, Err(VerifyError::NotYetValid { not_before, .. }) if not_before == at(2020)));
}

#[test]
fn an_expired_root_is_no_root() {
    let mesh = Mesh::new("root");
    let chain = [mesh.leaf(|leaf| leaf.not_after = date_time_ymd(2060, 1, 1))];
    let result = verify_peer(&chain, &mesh.trust, at(2051));
    assert!(
        matches!(result, Err(VerifyError::Expired { not_after, .. }) if not_after == at(2050)),
        "{result:?}"
    );
}

#[test]
fn another_root_of_the_same_name_and_another_domain_are_told_apart() {
    let (ours, theirs) = (Mesh::new("root"), Mesh::new("root"));
    let same_domain = verify_peer(&[theirs.leaf(|_| {})], &ours.trust, now());
    assert!(matches!(same_domain, Err(VerifyError::UnknownCa { .. })), "{same_domain:?}");
    let foreign = theirs.leaf(|leaf| leaf.subject_alt_names = vec![uri("spiffe://other.org/ns/a/sa/b")]);
    let other_domain = verify_peer(&[foreign], &ours.trust, now());
    assert!(matches!(other_domain, Err(VerifyError::UnknownTrustDomain { .. })), "{other_domain:?}");
}

#[test]
fn a_root_speaks_for_its_own_domain_only() {
    let (ours, theirs) = (Mesh::new("ours"), Mesh::new("theirs"));
    let other = TrustDomain::parse("other.org").unwrap();
    let bundle = TrustBundle::new(other, vec![theirs.root.clone()]).unwrap();
    let result = verify_peer(&[theirs.leaf(|_| {})], &ours.trust.with(bundle), now());
    assert!(matches!(result, Err(VerifyError::UnknownCa { .. })), "{result:?}");
}

#[test]
fn a_bundle_of_a_leaf_is_refused() {
    let mesh = Mesh::new("root");
    let bundle = TrustBundle::new(TrustDomain::default(), vec![mesh.leaf(|_| {})]);
    assert!(matches!(bundle, Err(crate::TrustProblem::NotAuthority { position: 1, .. })));
}

proptest! {
    #[test]
    fn bytes_from_a_peer_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mesh = Mesh::new("root");
        prop_assert!(verify_peer(&[bytes.into()], &mesh.trust, now()).is_err());
    }

    #[test]
    fn a_certificate_with_one_byte_changed_is_refused(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mesh = Mesh::new("root");
        let mut bytes = mesh.leaf(|_| {}).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(verify_peer(&[bytes.into()], &mesh.trust, now()).is_err());
    }

    #[test]
    fn what_a_spiffe_id_is_made_of_is_read_back(
        domain in "[a-z0-9._-]{1,40}",
        namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
        account in "[a-zA-Z0-9]([a-z0-9.-]{0,20}[a-z0-9])?",
    ) {
        let id = SpiffeId::workload(&TrustDomain::parse(&domain).unwrap(), &namespace, &account).unwrap();
        let again = SpiffeId::parse(id.as_str()).unwrap();
        prop_assert_eq!(&id, &again);
        prop_assert_eq!(again.trust_domain(), domain);
        prop_assert_eq!(again.namespace(), Some(namespace.as_str()));
        prop_assert_eq!(again.service_account(), Some(account.as_str()));
        prop_assert_eq!(format!("spiffe://{}", again.principal()), again.to_string());
    }

    #[test]
    fn whatever_parses_as_a_spiffe_id_is_normalised(text in "(spiffe://)?[ -~é]{0,60}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!(!text.contains("//") || text.matches("//").count() == 1);
            prop_assert!(!id.path().ends_with('/') && !id.path().contains(['?', '#', '%', '@', ':']));
            prop_assert!(id.path().split('/').all(|segment| segment != "." && segment != ".."));
        }
    }
}

struct Mesh {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    trust: Trust,
}

impl Mesh {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2050, 1, 1);
        let root: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
        let bundle = TrustBundle::new(TrustDomain::default(), vec![root.clone()]).unwrap();
        Self { issuer: Issuer::new(params, key), root, trust: Trust::new([bundle]) }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(ID)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().into()
    }
}

fn verify(change: impl FnOnce(&mut CertificateParams)) -> Result<PeerIdentity, VerifyError> {
    let mesh = Mesh::new("root");
    verify_peer(&[mesh.leaf(change)], &mesh.trust, now())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn now() -> UnixTime {
    at(2026)
}

/// The start of a year.
fn at(year: i32) -> UnixTime {
    let seconds = date_time_ymd(year, 1, 1).unix_timestamp();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
}
