//! Every diagnostic code of this crate with its one-line meaning, for the documentation.
//!
//! Invariant: a code never changes its meaning; a code that is gone is not used again. References that do not resolve and
//! conflicts are found while compiling: LN1001 to LN1004, LN1006, LN1009, LN1011.

/// A service that nobody serves.
pub const NOBODY_SERVES: &str = "LN2001";
/// An identity that no workload has.
pub const UNKNOWN_IDENTITY: &str = "LN2002";
/// A route that an earlier one hides.
pub const NEVER_MATCHES: &str = "LN2003";
/// A backend that gets nothing.
pub const WEIGHTLESS: &str = "LN2004";
/// A subset without workloads.
pub const EMPTY_SUBSET: &str = "LN2005";
/// A policy that selects nothing.
pub const SELECTS_NOTHING: &str = "LN2006";
/// Plaintext towards a workload that accepts only mTLS.
pub const PLAINTEXT_TO_STRICT: &str = "LN2007";
/// HTTP routes of a port whose protocol is not declared.
pub const UNDECLARED_PROTOCOL: &str = "LN2008";
/// HTTP routes of a port that is not HTTP.
pub const HTTP_ROUTES_OF_TCP: &str = "LN2009";

/// Code and meaning, ascending.
pub const ALL: &[(&str, &str)] = &[
    (NOBODY_SERVES, "the service selects no workload; calls to it are answered 503"),
    (UNKNOWN_IDENTITY, "no workload of this cluster has the identity; the source never matches here"),
    (NEVER_MATCHES, "an earlier match takes every request that this one could take"),
    (WEIGHTLESS, "all weights of the rule are 0; its requests are answered 500"),
    (EMPTY_SUBSET, "no workload has the labels of the subset; its share of the traffic is answered 503"),
    (SELECTS_NOTHING, "the policy selects no workload and has no effect"),
    (
        PLAINTEXT_TO_STRICT,
        "the rule asks for plaintext and a workload behind it accepts only mTLS; calls to it fail",
    ),
    (
        UNDECLARED_PROTOCOL,
        "the port has HTTP routes and does not declare its protocol; they count only when a connection is seen to be HTTP",
    ),
    (
        HTTP_ROUTES_OF_TCP,
        "the port is declared as TCP or TLS, so that no request is seen and HTTP routes have no effect",
    ),
];

/// The meaning of a code of this crate.
#[must_use]
pub fn meaning(code: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
}
