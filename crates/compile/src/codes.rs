//! Every diagnostic code of this crate with its one-line meaning, for the documentation.
//!
//! Invariant: a code never changes its meaning; a code that is gone is not used again.

/// A host that no service has.
pub const UNKNOWN_HOST: &str = "LN1001";
/// A subset that no DestinationRule defines.
pub const UNKNOWN_SUBSET: &str = "LN1002";
/// A port that the service does not have.
pub const UNKNOWN_PORT: &str = "LN1003";
/// A destination without a port, of a service with several.
pub const AMBIGUOUS_PORT: &str = "LN1004";
/// A regular expression that does not compile.
pub const INVALID_REGEX: &str = "LN1005";
/// Two objects say something about the same thing.
pub const CONFLICT: &str = "LN1006";
/// A policy that cannot be honoured denies what it selects.
pub const POLICY_WITHHELD: &str = "LN1007";
/// A policy without any effect.
pub const POLICY_WITHOUT_EFFECT: &str = "LN1008";
/// A reference to an object that does not exist or may not be referred to.
pub const UNRESOLVED_REFERENCE: &str = "LN1009";
/// A part of an object that this release reads and does not act on.
pub const NOT_HONOURED: &str = "LN1010";
/// A route that attaches to nothing.
pub const NOT_ATTACHED: &str = "LN1011";
/// An object whose name cannot be part of an identity, or whose identity is not known.
pub const NO_IDENTITY: &str = "LN1012";
/// A certificate that is missing or is not one.
pub const INVALID_CERTIFICATE: &str = "LN1013";
/// A retry condition that we do not know.
pub const UNKNOWN_RETRY_CONDITION: &str = "LN1014";
/// A rule that was refused while it was read, and what happens to its requests.
pub const RULE_REFUSED: &str = "LN1015";

/// Code and meaning, ascending.
pub const ALL: &[(&str, &str)] = &[
    (UNKNOWN_HOST, "no service has this host; traffic to it fails, and rules for it have no effect"),
    (UNKNOWN_SUBSET, "no DestinationRule defines this subset; its share of the traffic is answered 503"),
    (UNKNOWN_PORT, "the service does not have this port"),
    (AMBIGUOUS_PORT, "the service has several ports and the destination does not say which"),
    (INVALID_REGEX, "the regular expression does not compile; what it belongs to matches nothing"),
    (CONFLICT, "several objects say something about the same thing; the oldest wins"),
    (
        POLICY_WITHHELD,
        "the policy asks for something this release cannot do; it denies everything it selects",
    ),
    (POLICY_WITHOUT_EFFECT, "the policy has no effect"),
    (
        UNRESOLVED_REFERENCE,
        "the reference is to an object that does not exist or that may not be referred to",
    ),
    (NOT_HONOURED, "this release reads the field and does not act on it; the rest has effect"),
    (NOT_ATTACHED, "the route attaches to nothing and has no effect"),
    (NO_IDENTITY, "the workload can have no identity, so that it is outside the mesh"),
    (
        INVALID_CERTIFICATE,
        "the certificate is missing or not one; TLS handshakes of the listener are refused",
    ),
    (UNKNOWN_RETRY_CONDITION, "the retry condition is not known; the others count"),
    (RULE_REFUSED, "the rule was refused when it was read; its requests fail"),
];

/// The meaning of a code of this crate.
#[must_use]
pub fn meaning(code: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
}
