//! Trust domains and SPIFFE ids, parsed strictly (SPIFFE-ID specification, sections 2.1 to 2.4).
//!
//! Invariant: a [`SpiffeId`] that exists is valid and normalised; comparing two is comparing their text.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest SPIFFE id in bytes (SPIFFE-ID 2.3).
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;

/// Longest trust domain name in bytes (SPIFFE-ID 2.1).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// A trust domain: the name of a root of trust, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// The identity of a workload: `spiffe://TRUST_DOMAIN/PATH`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    /// Invariant: the byte after the trust domain in `text`.
    path_start: u16,
}

/// Why a text is not a SPIFFE id or a trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// It does not start with `spiffe://`.
    #[error("a SPIFFE id starts with `spiffe://`")]
    Scheme,
    /// The trust domain is empty, too long, or has other characters than a-z, 0-9, `.`, `-` and `_`.
    #[error("the trust domain is empty, too long, or has characters other than a-z, 0-9, `.`, `-`, `_`")]
    TrustDomain,
    /// The path has an empty, `.` or `..` segment, a trailing slash, or a character that is not allowed.
    #[error(
        "the path has an empty, `.` or `..` segment, a trailing slash, or a character other than a-z, A-Z, 0-9, `.`, `-`, `_`"
    )]
    Path,
    /// It is longer than 2048 bytes.
    #[error("it is longer than 2048 bytes")]
    TooLong,
}

impl TrustDomain {
    /// Parses a trust domain name.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character that is not allowed.
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN_BYTES || !name.bytes().all(allowed) {
            return Err(SpiffeIdError::TrustDomain);
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, as Istio's.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl SpiffeId {
    /// Parses a SPIFFE id.
    ///
    /// # Errors
    /// When it breaks a rule of the specification.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let domain_length = rest.find('/').unwrap_or(rest.len());
        TrustDomain::parse(&rest[..domain_length])?;
        let path = &rest[domain_length..];
        if !path.is_empty() && !path[1..].split('/').all(is_segment) {
            return Err(SpiffeIdError::Path);
        }
        let path_start = u16::try_from(SCHEME.len() + domain_length).map_err(|_| SpiffeIdError::TooLong)?;
        Ok(Self { text: text.into(), path_start })
    }

    /// The identity of a service account: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    ///
    /// # Errors
    /// When a part has a character that a SPIFFE path may not have.
    pub fn workload(
        domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeIdError> {
        if !is_segment(namespace) || !is_segment(service_account) {
            return Err(SpiffeIdError::Path);
        }
        Self::parse(&format!("{SCHEME}{}/ns/{namespace}/sa/{service_account}", domain.0))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.path_start)]
    }

    /// Its path with the leading slash; empty for a trust domain's own id.
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path_start)..]
    }

    /// Without the scheme, as Istio's AuthorizationPolicy writes principals.
    pub fn principal(&self) -> &str {
        &self.text[SCHEME.len()..]
    }

    /// The namespace, when the path is `/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace_and_account().map(|(namespace, _)| namespace)
    }

    /// The service account, when the path is `/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn service_account(&self) -> Option<&str> {
        self.namespace_and_account().map(|(_, account)| account)
    }

    fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().strip_prefix("/ns/")?.split('/');
        match (segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some(namespace), Some("sa"), Some(account), None) => Some((namespace, account)),
            _ => None,
        }
    }
}

fn is_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Borrow<str> for TrustDomain {
    /// So that a map by trust domain is asked with [`SpiffeId::trust_domain`]; order and hash are the text's.
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.text.as_ref().to_owned()
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeIdError;

    fn try_from(name: String) -> Result<Self, SpiffeIdError> {
        Self::parse(&name)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_has_its_parts() {
        let id = SpiffeId::workload(&TrustDomain::default(), "shop", "cart").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), Some("shop"));
        assert_eq!(id.service_account(), Some("cart"));
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/cart");
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for text in [
            "",
            "http://td/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://TD/a",
            "spiffe://td:80/a",
            "spiffe://u@td/a",
            "spiffe://td/",
            "spiffe://td/a//b",
            "spiffe://td/./a",
            "spiffe://td/../a",
            "spiffe://td/a/",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/%41",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_cannot_smuggle_a_segment() {
        assert!(SpiffeId::workload(&TrustDomain::default(), "a/sa/admin", "x").is_err());
        assert!(SpiffeId::workload(&TrustDomain::default(), "", "x").is_err());
    }
}
