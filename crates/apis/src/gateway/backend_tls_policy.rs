//! BackendTLSPolicy: TLS to a service outside the mesh's own.

use crate::codes;
use crate::decode::{Cursor, Fields, choice, name, spanned, text};
use crate::diagnostic::{Rule, Spanned};

use super::reference::{LocalRef, local_ref};

/// A BackendTLSPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendTlsPolicy {
    /// Services (and ports by name) it is for.
    pub target_refs: Vec<LocalRef>,
    /// How the server is verified. Refused: connections to the targets must fail, not go unverified.
    pub validation: Rule<BackendValidation>,
}

/// How the server is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendValidation {
    /// Name asked for, and, unless `subject_alt_names` says otherwise, required.
    pub hostname: Spanned<String>,
    /// Authorities: ConfigMaps or Secrets.
    pub ca_certificate_refs: Vec<LocalRef>,
    /// `wellKnownCACertificates: System`.
    pub system_certificates: bool,
    /// Names of which the server must have one.
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A host.
    Hostname(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}

pub(crate) fn backend_tls_policy(o: &mut Fields<'_>) -> Option<BackendTlsPolicy> {
    o.req("spec", |value| {
        value.object(|o| {
            let target_refs = o.list("targetRefs", local_ref(None, None, false));
            Some(BackendTlsPolicy {
                target_refs,
                validation: o.rest_as_rule(|o| o.req("validation", validation)),
            })
        })
    })
}

fn validation(value: Cursor<'_>) -> Option<BackendValidation> {
    value.object(|o| {
        o.at_most_one(&["caCertificateRefs", "wellKnownCACertificates"]);
        let found = BackendValidation {
            ca_certificate_refs: o.list("caCertificateRefs", local_ref(None, None, false)),
            system_certificates: o.or("wellKnownCACertificates", false, choice(&[("System", true)]))?,
            subject_alt_names: o.list("subjectAltNames", subject_alt_name),
            hostname: o.req("hostname", spanned(name))?,
        };
        if found.ca_certificate_refs.is_empty() && !found.system_certificates {
            let message = "one of `caCertificateRefs` and `wellKnownCACertificates` is required";
            o.here().refuse(codes::MISSING_FIELD, message, None);
        }
        Some(found)
    })
}

fn subject_alt_name(value: Cursor<'_>) -> Option<SubjectAltName> {
    value.object(|o| {
        if o.req("type", choice(&[("Hostname", true), ("URI", false)]))? {
            o.req("hostname", text).map(SubjectAltName::Hostname)
        } else {
            o.req("uri", text).map(SubjectAltName::Uri)
        }
    })
}
