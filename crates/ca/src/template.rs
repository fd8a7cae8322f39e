//! What all certificates that we sign have in common.
//!
//! Invariant: serial numbers are random, times are whole seconds, and no certificate has a name constraint:
//! webpki refuses every chain with a URI constraint, so one on an intermediate would cut its whole cluster off.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls_pki_types::UnixTime;

/// Leaves are dated back by this, so that a peer whose clock is a little behind accepts them at once.
pub(crate) const LEAF_BACKDATE: Duration = Duration::from_secs(60);

/// Authorities are dated back further than any leaf under them.
const AUTHORITY_BACKDATE: Duration = Duration::from_secs(3600);

/// Longest common name (X.520).
const MAX_COMMON_NAME: usize = 64;

/// The crypto library has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness")]
pub struct NoRandomness;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// An authority of this name, valid for `lifetime` from `now`.
pub(crate) fn authority(
    name: &str,
    below: BasicConstraints,
    now: UnixTime,
    lifetime: Duration,
) -> Result<CertificateParams, NoRandomness> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Leno");
    params.distinguished_name.push(DnType::CommonName, cut(name));
    params.is_ca = IsCa::Ca(below);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, seconds(now).saturating_sub(AUTHORITY_BACKDATE), seconds(now) + lifetime);
    Ok(params)
}

/// A leaf for both ends of TLS. Its names are the caller's to add; its subject is empty.
pub(crate) fn leaf(now: UnixTime, not_after: UnixTime) -> Result<CertificateParams, NoRandomness> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, seconds(now).saturating_sub(LEAF_BACKDATE), seconds(not_after));
    Ok(params)
}

fn serial() -> Result<SerialNumber, NoRandomness> {
    let mut bytes: [u8; 16] = random()?;
    // Positive, and never shortened by a leading zero (RFC 5280 4.1.2.2).
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, not_before: Duration, not_after: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + not_before;
    params.not_after = epoch + not_after;
}

fn cut(name: &str) -> &str {
    let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_COMMON_NAME);
    &name[..end.last().unwrap_or(0)]
}

pub(crate) fn seconds(time: UnixTime) -> Duration {
    Duration::from_secs(time.as_secs())
}
