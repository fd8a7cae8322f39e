//! Compiled matchers: strings, paths, headers and query parameters.
//!
//! Invariant: a regular expression matches the whole value, looks at bytes (so that no odd byte slips past a DENY) and is
//! bounded in size. Everything here runs without allocation, except for percent-encoded query values.

use std::{borrow::Cow, sync::Arc};

use leno_model::{HeaderMatch, HeaderTest, HttpMatch, PathMatch, QueryMatch, StringMatch};

use crate::{facts::RequestFacts, tables::WhoAmI};

/// Size of a compiled expression in bytes; above the compiler's own limit, so that what it accepted compiles here.
const REGEX_BYTES: usize = 8 << 20;

/// A regular expression that does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the regular expression {pattern:?} does not compile: {why}")]
pub struct BadPattern {
    /// The expression.
    pub pattern: Arc<str>,
    /// The first line of the reason.
    pub why: String,
}

/// A compiled regular expression; equal when its text is.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: Arc<str>,
    regex: regex::bytes::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    fn build(text: &Arc<str>, wrapped: &str) -> Result<Self, BadPattern> {
        let build = |unicode| {
            regex::bytes::RegexBuilder::new(wrapped).unicode(unicode).size_limit(REGEX_BYTES).build()
        };
        // Without Unicode `.` is any byte; classes such as `\p{L}` exist only with it.
        match build(false).or_else(|_| build(true)) {
            Ok(regex) => Ok(Self { text: text.clone(), regex }),
            Err(error) => {
                let why = error.to_string().lines().last().unwrap_or_default().to_owned();
                Err(BadPattern { pattern: text.clone(), why })
            }
        }
    }

    /// For the whole value.
    pub(crate) fn whole(text: &Arc<str>) -> Result<Self, BadPattern> {
        Self::build(text, &format!("\\A(?:{text})\\z"))
    }

    /// For any part of a value.
    pub(crate) fn part(text: &Arc<str>) -> Result<Self, BadPattern> {
        Self::build(text, text)
    }

    fn template(text: &Arc<str>) -> Result<Self, BadPattern> {
        // istio: `{*}` is one path segment, `{**}` any number of them, also none.
        let escaped = regex::escape(text).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+");
        Self::build(text, &format!("\\A(?:{escaped})\\z"))
    }

    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    pub(crate) fn replace_all<'v>(&self, value: &'v [u8], by: &[u8]) -> Cow<'v, [u8]> {
        self.regex.replace_all(value, by)
    }
}

/// A compiled [`StringMatch`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Text {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Regex(Pattern),
    Present,
}

impl Text {
    pub(crate) fn compile(test: &StringMatch) -> Result<Self, BadPattern> {
        Ok(match test {
            StringMatch::Exact(text) => Self::Exact(text.clone()),
            StringMatch::Prefix(text) => Self::Prefix(text.clone()),
            StringMatch::Suffix(text) => Self::Suffix(text.clone()),
            StringMatch::Regex(text) => Self::Regex(Pattern::whole(text)?),
            StringMatch::Present => Self::Present,
        })
    }

    pub(crate) fn compile_all(tests: &[StringMatch]) -> Result<Vec<Self>, BadPattern> {
        tests.iter().map(Self::compile).collect()
    }

    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Present => !value.is_empty(),
        }
    }

    /// As [`Self::is_match`], ignoring ASCII case.
    pub(crate) fn is_match_ignoring_case(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes().eq_ignore_ascii_case(value),
            Self::Prefix(text) => starts_with_ignoring_case(value, text.as_bytes()),
            Self::Suffix(text) => {
                let (value, text) = (value, text.as_bytes());
                value.len() >= text.len() && value[value.len() - text.len()..].eq_ignore_ascii_case(text)
            }
            Self::Regex(pattern) => pattern.is_match(value) || pattern.is_match(&value.to_ascii_lowercase()),
            Self::Present => !value.is_empty(),
        }
    }
}

fn starts_with_ignoring_case(value: &[u8], prefix: &[u8]) -> bool {
    value.len() >= prefix.len() && value[..prefix.len()].eq_ignore_ascii_case(prefix)
}

/// A compiled [`PathMatch`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PathTest {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    /// Without trailing slashes; empty matches every path.
    SegmentPrefix(Arc<str>),
    Suffix(Arc<str>),
    Pattern(Pattern),
}

impl PathTest {
    pub(crate) fn compile(test: &PathMatch) -> Result<Self, BadPattern> {
        Ok(match test {
            PathMatch::Exact(text) => Self::Exact(text.clone()),
            PathMatch::Prefix(text) => Self::Prefix(text.clone()),
            // gateway-api: a trailing `/` of a PathPrefix is ignored.
            PathMatch::SegmentPrefix(text) => Self::SegmentPrefix(text.trim_end_matches('/').into()),
            PathMatch::Suffix(text) => Self::Suffix(text.clone()),
            PathMatch::Regex(text) => Self::Pattern(Pattern::whole(text)?),
            PathMatch::Template(text) => Self::Pattern(Pattern::template(text)?),
        })
    }

    pub(crate) fn is_match(&self, path: &str, ignore_case: bool) -> bool {
        let path = path.as_bytes();
        let is_prefix = |prefix: &str| match ignore_case {
            true => starts_with_ignoring_case(path, prefix.as_bytes()),
            false => path.starts_with(prefix.as_bytes()),
        };
        match self {
            Self::Exact(text) if ignore_case => text.as_bytes().eq_ignore_ascii_case(path),
            Self::Exact(text) => text.as_bytes() == path,
            Self::Prefix(text) => is_prefix(text),
            Self::SegmentPrefix(text) => is_prefix(text) && matches!(path.get(text.len()), None | Some(b'/')),
            Self::Suffix(text) => path.ends_with(text.as_bytes()),
            Self::Pattern(pattern) => pattern.is_match(path),
        }
    }

    /// How many bytes of a path that matched a prefix test are the prefix; `None` for other tests.
    pub(crate) fn prefix_length(&self) -> Option<usize> {
        match self {
            Self::Prefix(text) | Self::SegmentPrefix(text) => Some(text.len()),
            Self::Exact(_) | Self::Suffix(_) | Self::Pattern(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Present,
    Text(Text),
}

impl Value {
    fn compile(test: &HeaderTest) -> Result<Self, BadPattern> {
        Ok(match test {
            HeaderTest::Present => Self::Present,
            HeaderTest::Value(text) => Self::Text(Text::compile(text)?),
        })
    }

    fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Text(text) => text.is_match(value),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Named {
    name: Arc<str>,
    value: Value,
    invert: bool,
}

/// A compiled [`HttpMatch`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestTest {
    pub(crate) source: HttpMatch,
    pub(crate) path: Option<PathTest>,
    method: Option<Text>,
    scheme: Option<Text>,
    authority: Option<Text>,
    headers: Vec<Named>,
    query: Vec<Named>,
}

/// The first field of a match that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch<'m> {
    Path,
    Method,
    Scheme,
    Authority,
    Header(&'m str),
    Query(&'m str),
    SourceNamespace,
    SourceLabels,
}

impl RequestTest {
    pub(crate) fn compile(source: &HttpMatch) -> Result<Self, BadPattern> {
        let text = |test: &Option<StringMatch>| test.as_ref().map(Text::compile).transpose();
        let header = |header: &HeaderMatch| {
            let HeaderMatch { name, test, invert } = header;
            Ok(Named { name: name.clone(), value: Value::compile(test)?, invert: *invert })
        };
        let parameter = |parameter: &QueryMatch| {
            let QueryMatch { name, test } = parameter;
            Ok(Named { name: name.clone(), value: Value::compile(test)?, invert: false })
        };
        Ok(Self {
            path: source.path.as_ref().map(PathTest::compile).transpose()?,
            method: text(&source.method)?,
            scheme: text(&source.scheme)?,
            authority: text(&source.authority)?,
            headers: source.headers.iter().map(header).collect::<Result<_, BadPattern>>()?,
            query: source.query.iter().map(parameter).collect::<Result<_, BadPattern>>()?,
            source: source.clone(),
        })
    }

    /// Whether a request of a caller matches, or the first field that does not.
    pub(crate) fn check(&self, caller: &WhoAmI, request: &RequestFacts<'_>) -> Result<(), Mismatch<'_>> {
        let passes = |test: &Option<Text>, value: &str| {
            test.as_ref().is_none_or(|test| test.is_match(value.as_bytes()))
        };
        if let Some(path) = &self.path
            && !path.is_match(request.path, self.source.ignore_path_case)
        {
            return Err(Mismatch::Path);
        }
        if !passes(&self.method, request.method) {
            return Err(Mismatch::Method);
        }
        if !passes(&self.scheme, request.scheme) {
            return Err(Mismatch::Scheme);
        }
        if let Some(authority) = &self.authority
            && !authority.is_match_ignoring_case(request.authority.as_bytes())
        {
            return Err(Mismatch::Authority);
        }
        for header in &self.headers {
            let holds = request.header(&header.name).is_some_and(|value| header.value.is_match(&value));
            if holds == header.invert {
                return Err(Mismatch::Header(&header.name));
            }
        }
        for parameter in &self.query {
            let value = request.query.and_then(|query| query_value(query, &parameter.name));
            if !value.is_some_and(|value| parameter.value.is_match(&value)) {
                return Err(Mismatch::Query(&parameter.name));
            }
        }
        if self.source.source_namespace.as_ref().is_some_and(|namespace| *namespace != caller.id.namespace) {
            return Err(Mismatch::SourceNamespace);
        }
        if !has_labels(&caller.labels, &self.source.source_labels) {
            return Err(Mismatch::SourceLabels);
        }
        Ok(())
    }
}

type Labels = std::collections::BTreeMap<Arc<str>, Arc<str>>;

/// Whether all wanted labels are there.
pub(crate) fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The first value of a query parameter, decoded.
fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, [u8]>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*percent_decoded(key) == *name.as_bytes()).then(|| percent_decoded(value))
    })
}

fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let digit =
        |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}
