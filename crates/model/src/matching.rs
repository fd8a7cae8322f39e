//! Matchers for strings, paths, headers and query parameters: data only, evaluated in `decide`.
//!
//! Invariant: a regular expression here was compiled once by the compiler with the flags and limits that
//! `decide` uses, so it compiles there too. It matches the whole value (Envoy `safe_regex` semantics).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A test of one string.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StringMatch {
    /// Equal, byte by byte.
    Exact(Arc<str>),
    /// Starts with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Matches the whole value.
    Regex(Arc<str>),
    /// Is present and not empty (the `*` of an Istio AuthorizationPolicy).
    Present,
}

/// A test of a request's normalised path, without its query.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Character prefix (Istio `uri.prefix`): `/foo` matches `/foobar`.
    Prefix(Arc<str>),
    /// Prefix by path elements (Gateway API `PathPrefix`): `/foo` matches `/foo/bar`, not `/foobar`.
    SegmentPrefix(Arc<str>),
    /// The whole path matches.
    Regex(Arc<str>),
    /// Istio AuthorizationPolicy path template: `{*}` one segment, `{**}` the rest.
    Template(Arc<str>),
    /// Ends with (AuthorizationPolicy `*/suffix`).
    Suffix(Arc<str>),
}

/// A test of a header. Repeated headers are joined with `,` before the test.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: Arc<str>,
    /// The test; [`HeaderTest::Present`] asks only for its presence.
    pub test: HeaderTest,
    /// Matches when the test does not (Istio `withoutHeaders`). A missing header fails the test, so it satisfies the inverse.
    pub invert: bool,
}

/// What is asked of a header or query parameter.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderTest {
    /// It is there, with any value.
    Present,
    /// Its value passes.
    Value(StringMatch),
}

/// A test of a query parameter; the first of repeated ones counts (Gateway API: HTTPQueryParamMatch).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Exact, case-sensitive name.
    pub name: Arc<str>,
    /// The test.
    pub test: HeaderTest,
}
