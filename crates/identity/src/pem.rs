//! PEM in and out.
//!
//! Invariant: text that holds a private key wipes itself.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

const LINE: usize = 64;

/// Why PEM could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemProblem {
    /// There is no certificate in it.
    #[error("there is no certificate (BEGIN CERTIFICATE) in the PEM text")]
    NoCertificate,
    /// A section does not decode.
    #[error("the PEM text is malformed: {0}")]
    Malformed(String),
}

/// The certificates of a PEM text, in their order, at least one. Other sections are passed over.
///
/// # Errors
/// When there is none or one does not decode.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemProblem> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|problem| PemProblem::Malformed(problem.to_string()))?;
    if certificates.is_empty() {
        return Err(PemProblem::NoCertificate);
    }
    Ok(certificates)
}

/// Certificates as PEM, in their order.
pub fn encode_certificates<'a>(chain: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    chain.into_iter().fold(String::new(), |mut text, certificate| {
        text.push_str(&encode("CERTIFICATE", certificate));
        text
    })
}

/// A PKCS#8 key as PEM.
pub fn encode_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    encode("PRIVATE KEY", pkcs8)
}

fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Sized at once: growing would leave copies of a key behind.
    let lines = body.len().div_ceil(LINE);
    let mut text = Zeroizing::new(String::with_capacity(body.len() + lines + 2 * (label.len() + 20)));
    let _ = writeln!(text, "-----BEGIN {label}-----");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        let _ = writeln!(text, "{line}");
        rest = after;
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        for length in [1, 47, 48, 49, 500] {
            let der = CertificateDer::from(vec![7; length]);
            let text = encode_certificates([&der, &der]);
            assert_eq!(certificates(text.as_bytes()), Ok(vec![der.clone(), der]));
        }
    }

    #[test]
    fn text_without_a_certificate_is_an_error() {
        assert_eq!(certificates(b"hello"), Err(PemProblem::NoCertificate));
    }
}
