//! One normal form of a request's path, made before anything is decided about it.
//!
//! Invariant: what is authorised is what is forwarded, byte for byte; normalising twice is normalising once. A path that an
//! application might read in another way than we do is refused, unless the policy says otherwise.
//!
//! Must not know: the query, which is never touched.

use std::borrow::Cow;

/// What to do about an escaped slash or backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// Refuse the request.
    #[default]
    Refuse,
    /// Leave `%2F` and `%5C` escaped.
    Keep,
}

/// What to do about `..` above the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AboveRoot {
    /// Refuse the request.
    #[default]
    Refuse,
    /// Stay at the root (RFC 3986 5.2.4).
    Clamp,
}

/// How paths are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPolicy {
    /// `//` becomes `/`; true (Istio's MERGE_SLASHES).
    pub merge_slashes: bool,
    /// Escaped slashes; refused.
    pub escaped_slashes: EscapedSlashes,
    /// `..` above the root; refused.
    pub above_root: AboveRoot,
}

impl Default for PathPolicy {
    fn default() -> Self {
        PathPolicy {
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::default(),
            above_root: AboveRoot::default(),
        }
    }
}

/// Why a path was refused; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path is not absolute")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has an invalid escape")]
    InvalidEscape,
    /// NUL or another control character, escaped or not.
    #[error("the path has a control character")]
    Control,
    /// `%2F`, `%5C` or a backslash.
    #[error("the path has an escaped slash or a backslash")]
    EscapedSlash,
    /// `..` above the root.
    #[error("the path leaves the root")]
    AboveRoot,
    /// `.;x` or `..;x`: a dot segment to servers that take parameters off, and a name to others.
    #[error("the path has a dot segment with parameters")]
    DotWithParameters,
}

/// Normalises the path of `target` (`/path?query`); the query follows unchanged. Borrows when nothing changes.
pub fn normalise<'a>(target: &'a str, policy: &PathPolicy) -> Result<Cow<'a, str>, PathError> {
    let (path, query) = match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(target));
    }
    let unescaped = unescape(path.as_bytes(), policy)?;
    let mut normal = resolve(&unescaped, policy)?;
    normal.extend_from_slice(query.as_bytes());
    // Only ASCII was decoded, and only whole segments were removed, so what was UTF-8 is UTF-8.
    String::from_utf8(normal).map(Cow::Owned).map_err(|_| PathError::InvalidEscape)
}

/// Nothing in it can change: no escape, no empty or dot segment, no byte to refuse.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' | 0..=0x1f | 0x7f => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Decodes escaped unreserved characters, and writes all other escapes in upper case (RFC 3986 6.2.2).
fn unescape(path: &[u8], policy: &PathPolicy) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(PathError::InvalidEscape) };
                rest = tail;
                let (Some(h), Some(l)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
                else {
                    return Err(PathError::InvalidEscape);
                };
                match u8::try_from(h * 16 + l).map_err(|_| PathError::InvalidEscape)? {
                    0..=0x1f | 0x7f => return Err(PathError::Control),
                    b'/' | b'\\' if policy.escaped_slashes == EscapedSlashes::Refuse => {
                        return Err(PathError::EscapedSlash);
                    }
                    plain @ (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                        out.push(plain)
                    }
                    _ => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
            }
            b'\\' => return Err(PathError::EscapedSlash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

/// Resolves dot segments and merges slashes. `path` begins with `/`.
fn resolve(path: &[u8], policy: &PathPolicy) -> Result<Vec<u8>, PathError> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut all = path[1..].split(|b| *b == b'/').peekable();
    while let Some(segment) = all.next() {
        let last = all.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." && segments.pop().is_none() && policy.above_root == AboveRoot::Refuse {
                    return Err(PathError::AboveRoot);
                }
                // "/a/." and "/a/b/.." name a directory: their slash stays.
                if last {
                    segments.push(b"");
                }
            }
            [b'.', b';', ..] | [b'.', b'.', b';', ..] => return Err(PathError::DotWithParameters),
            b"" if policy.merge_slashes && !last => {}
            _ => segments.push(segment),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    Ok(if out.is_empty() { vec![b'/'] } else { out })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(target: &str) -> Result<String, PathError> {
        normalise(target, &PathPolicy::default()).map(Cow::into_owned)
    }

    #[test]
    fn paths_become_their_normal_form() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a?x=%2f../", "/a?x=%2f../"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/.%2e/b", "/b"),
            ("/%61%7e%41", "/a~A"),
            ("/%c3%a9%3b", "/%C3%A9%3B"),
            ("/%25%32%65", "/%252e"),
            ("/a/...", "/a/..."),
            ("/.hidden", "/.hidden"),
            ("/a;b/../c", "/c"),
            ("/a;..;/...;b", "/a;..;/...;b"),
        ] {
            assert_eq!(normal(target).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (target, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/a%2fb", PathError::EscapedSlash),
            ("/a%2Fb", PathError::EscapedSlash),
            ("/a%5cb", PathError::EscapedSlash),
            ("/a\\b", PathError::EscapedSlash),
            ("/a%00", PathError::Control),
            ("/a%0d%0a", PathError::Control),
            ("/a%7F", PathError::Control),
            ("/a\u{1}", PathError::Control),
            ("/a%", PathError::InvalidEscape),
            ("/a%2", PathError::InvalidEscape),
            ("/a%zz", PathError::InvalidEscape),
            ("/a%+1", PathError::InvalidEscape),
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/a", PathError::AboveRoot),
            ("/public/..;/admin", PathError::DotWithParameters),
            ("/public/%2e%2E;a=b/admin", PathError::DotWithParameters),
            ("/a/.;/b", PathError::DotWithParameters),
        ] {
            assert_eq!(normal(target), Err(error), "{target}");
        }
    }

    #[test]
    fn the_policy_can_keep_slashes_and_clamp_at_the_root() {
        let lax = PathPolicy {
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::Keep,
            above_root: AboveRoot::Clamp,
        };
        for (target, expected) in
            [("/a//b", "/a//b"), ("/a%2fb%5c", "/a%2Fb%5C"), ("/../../a", "/a"), ("/a//../b", "/a/b")]
        {
            assert_eq!(normalise(target, &lax).as_deref(), Ok(expected), "{target}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(
            target in "/([a-c./]|%2e|%2E|%41|%25|%2f|%5C|%c3|\\?){0,24}",
            merge_slashes in any::<bool>(),
            keep in any::<bool>(),
            clamp in any::<bool>(),
        ) {
            let policy = PathPolicy {
                merge_slashes,
                escaped_slashes: if keep { EscapedSlashes::Keep } else { EscapedSlashes::Refuse },
                above_root: if clamp { AboveRoot::Clamp } else { AboveRoot::Refuse },
            };
            if let Ok(once) = normalise(&target, &policy) {
                let twice = normalise(&once, &policy).map(Cow::into_owned);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                let path = once.split('?').next().unwrap_or_default();
                prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }

        #[test]
        fn no_path_panics(target in "\\PC{0,40}") {
            let _ = normalise(&target, &PathPolicy::default());
        }
    }
}
