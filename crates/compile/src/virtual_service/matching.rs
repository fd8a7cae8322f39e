//! Matches of a VirtualService in the model's terms.
//!
//! Invariant: a regular expression that does not compile makes the match one that never holds, never one that always does.

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::{Diagnostic, Spanned, istio::virtual_service as api};
use leno_model::{HeaderMatch, HeaderTest, HttpMatch, PathMatch, QueryMatch, StringMatch};

use crate::{codes, pods::shared};

type Found<T> = Result<T, Box<Diagnostic>>;

/// Largest compiled regular expression, in bytes: patterns come from users and are compiled in every proxy.
const REGEX_BYTES: usize = 1 << 20;

/// A match of HTTP requests.
pub(crate) fn http(given: &api::HttpMatch) -> Found<HttpMatch> {
    let mut headers = header_matches(&given.headers, false)?;
    headers.extend(header_matches(&given.without_headers, true)?);
    let query = given
        .query_params
        .iter()
        .map(|(name, value)| Ok(QueryMatch { name: name.as_str().into(), test: test(value)? }));
    Ok(HttpMatch {
        path: given.uri.as_ref().map(path).transpose()?,
        ignore_path_case: given.ignore_uri_case,
        method: given.method.as_ref().map(string).transpose()?,
        scheme: given.scheme.as_ref().map(string).transpose()?,
        authority: given.authority.as_ref().map(string).transpose()?,
        headers,
        query: query.collect::<Found<_>>()?,
        source_namespace: given.source_namespace.as_deref().map(Into::into),
        source_labels: shared(&given.source_labels),
    })
}

fn header_matches(given: &BTreeMap<String, api::StringMatch>, invert: bool) -> Found<Vec<HeaderMatch>> {
    let one = |(name, value): (&String, &api::StringMatch)| {
        Ok(HeaderMatch { name: name.to_ascii_lowercase().into(), test: test(value)?, invert })
    };
    given.iter().map(one).collect()
}

fn test(given: &api::StringMatch) -> Found<HeaderTest> {
    Ok(match given {
        api::StringMatch::Present => HeaderTest::Present,
        other => HeaderTest::Value(string(other)?),
    })
}

fn string(given: &api::StringMatch) -> Found<StringMatch> {
    Ok(match given {
        api::StringMatch::Exact(text) => StringMatch::Exact(text.as_str().into()),
        api::StringMatch::Prefix(text) => StringMatch::Prefix(text.as_str().into()),
        api::StringMatch::Regex(text) => StringMatch::Regex(regex(text)?),
        api::StringMatch::Present => StringMatch::Present,
    })
}

fn path(given: &api::StringMatch) -> Found<PathMatch> {
    Ok(match given {
        api::StringMatch::Exact(text) => PathMatch::Exact(text.as_str().into()),
        api::StringMatch::Prefix(text) => PathMatch::Prefix(text.as_str().into()),
        api::StringMatch::Regex(text) => PathMatch::Regex(regex(text)?),
        api::StringMatch::Present => PathMatch::Prefix("/".into()),
    })
}

/// Checks that a pattern compiles.
pub(crate) fn regex(pattern: &Spanned<String>) -> Found<Arc<str>> {
    match regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build() {
        Ok(_) => Ok(pattern.as_str().into()),
        Err(error) => {
            // The crate's message draws the pattern over several lines; its last one says what is wrong.
            let text = error.to_string();
            let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("{:?} is not a regular expression: {what}", pattern.value);
            Err(Box::new(Diagnostic::error(codes::INVALID_REGEX, pattern.at.clone(), message)))
        }
    }
}
