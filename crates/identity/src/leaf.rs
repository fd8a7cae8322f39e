//! What a leaf certificate says about its holder, by the rules of the X.509-SVID specification.
//!
//! Invariant: a [`Leaf`] has exactly one URI SAN, which is a valid SPIFFE id with a path; is no CA; and may be used for both ends of TLS.
//! Nothing here says that it is genuine: the chain is `verify`'s.

use std::{fmt, sync::Arc, time::Duration};

use leno_model::identity::SpiffeId;
use rustls_pki_types::UnixTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::verify::VerifyError;

/// More URI SANs than this are not listed in an error.
const LISTED_SANS: usize = 4;

/// A certificate's serial number; shown in hexadecimal as openssl does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Serial(Arc<[u8]>);

/// The facts of a leaf certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// First valid second.
    pub not_before: UnixTime,
    /// Last valid second.
    pub not_after: UnixTime,
    /// Its serial number.
    pub serial: Serial,
}

impl Leaf {
    /// Reads a leaf certificate.
    ///
    /// # Errors
    /// When it is malformed or breaks a rule for leaf certificates.
    pub fn parse(der: &[u8]) -> Result<Self, VerifyError> {
        let certificate = parse(der)?;
        let spiffe_id = spiffe_id(&certificate)?;
        check_usage(&certificate, &spiffe_id)?;
        Ok(Self {
            spiffe_id,
            not_before: seconds(certificate.validity().not_before.timestamp()),
            not_after: seconds(certificate.validity().not_after.timestamp()),
            serial: Serial(certificate.raw_serial().into()),
        })
    }
}

/// When a certificate of any kind is valid.
pub(crate) fn validity(der: &[u8]) -> Result<(UnixTime, UnixTime), VerifyError> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    Ok((seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp())))
}

/// Whether a certificate says that it is an authority.
pub(crate) fn is_authority(der: &[u8]) -> Result<bool, VerifyError> {
    Ok(parse(der)?.is_ca())
}

/// Whether one of a certificate's URI SANs is this.
pub(crate) fn has_uri(der: &[u8], uri: &str) -> bool {
    let Ok(certificate) = parse(der) else { return false };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(found) if *found == uri))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, VerifyError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(VerifyError::Malformed),
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    let names = certificate.subject_alternative_name().map_err(|_| VerifyError::Malformed)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(VerifyError::Malformed);
    }
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [] => Err(VerifyError::NoSpiffeId),
        [uri] => {
            let id = SpiffeId::parse(uri)
                .map_err(|problem| VerifyError::InvalidSpiffeId { uri: shortened(uri), problem })?;
            // X.509-SVID 2: a leaf names a workload, so its id has a path.
            if id.path().is_empty() { Err(VerifyError::NoWorkload { id }) } else { Ok(id) }
        }
        several => Err(VerifyError::SeveralUris {
            count: several.len(),
            first: several.iter().take(LISTED_SANS).map(|uri| shortened(uri)).collect(),
        }),
    }
}

fn check_usage(certificate: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), VerifyError> {
    let constraints = certificate.basic_constraints().map_err(|_| VerifyError::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(VerifyError::LeafIsAuthority { id: id.clone() });
    }
    // X.509-SVID 4.3: digitalSignature must be set, keyCertSign and cRLSign must not.
    let usage = certificate.key_usage().map_err(|_| VerifyError::Malformed)?;
    let may_sign = usage.is_some_and(|usage| {
        usage.value.digital_signature() && !usage.value.key_cert_sign() && !usage.value.crl_sign()
    });
    if !may_sign {
        return Err(VerifyError::KeyUsage { id: id.clone() });
    }
    // X.509-SVID 4.4: when present it has serverAuth and clientAuth.
    let extended = certificate.extended_key_usage().map_err(|_| VerifyError::Malformed)?;
    if extended.is_some_and(|usage| !(usage.value.server_auth && usage.value.client_auth)) {
        return Err(VerifyError::ExtendedKeyUsage { id: id.clone() });
    }
    Ok(())
}

/// A text from a peer, cut to what a log line can bear.
fn shortened(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_default).collect()
}

fn seconds(timestamp: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(timestamp).unwrap_or(0)))
}

impl Serial {
    /// The bytes, most significant first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
