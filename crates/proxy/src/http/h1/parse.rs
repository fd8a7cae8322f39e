//! Turns the bytes of a complete head into a request or response and decides how its body is framed.
//!
//! Invariant: a message whose framing, target or authority can be read in two ways is refused (RFC 9112 sections 3, 6, 11).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::scan::{HeadError, TOO_MANY_HEADERS, URI_TOO_LONG, bad};
use crate::http::hop::check_authority;
use crate::http::settings::HeadLimits;

/// The most header fields that any setting allows.
const HARD_MAX_HEADERS: usize = 128;

/// How a received body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) request: Request<()>,
    pub(super) framing: BodyFraming,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
    /// The client offers to change protocols.
    pub(super) upgrade: bool,
}

#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    pub(super) framing: BodyFraming,
    pub(super) keep_alive: bool,
}

/// What the `Connection` fields say.
#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

/// Parses `head`, which ends in its empty line.
pub(super) fn parse_request(head: &Bytes, limits: &HeadLimits) -> Result<RequestHead, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; HARD_MAX_HEADERS];
    let max = limits.max_headers.min(HARD_MAX_HEADERS);
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields[..max]) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(bad("the head is malformed")),
        Err(httparse::Error::Version) if !has_version(head) => {
            return Err(bad("the request line is malformed"));
        }
        Err(error) => return Err(head_error(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(bad("the request line is malformed"));
    };
    if target.len() > limits.max_uri_bytes {
        return Err(URI_TOO_LONG);
    }
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("the method is not a token"))?;
    let mut headers = header_map(head, parsed.headers)?;
    let (uri, authority) = parse_target(&method, head.slice_ref(target.as_bytes()))?;
    settle_host(&mut headers, version, authority)?;
    let options = connection_options(&headers);
    let framing = framing_of(&headers, version)?.unwrap_or(BodyFraming::None);
    if method == Method::CONNECT && !matches!(framing, BodyFraming::None | BodyFraming::Length(0)) {
        return Err(bad("a CONNECT request has a body"));
    }
    let expect_continue = expectation(&headers, version)?;
    let upgrade = options.upgrade && version == Version::HTTP_11 && headers.contains_key(UPGRADE);
    let keep_alive = !options.close && (version == Version::HTTP_11 || options.keep_alive);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(RequestHead { request, framing, keep_alive, expect_continue, upgrade })
}

/// Parses the head of a response to a request with this `method`.
pub(super) fn parse_response(
    head: &Bytes,
    limits: &HeadLimits,
    method: &Method,
) -> Result<ResponseHead, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; HARD_MAX_HEADERS];
    let max = limits.max_headers.min(HARD_MAX_HEADERS);
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut fields[..max]) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(bad("the head is malformed")),
        Err(error) => return Err(head_error(error)),
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(bad("the status line is malformed"));
    };
    let status = StatusCode::from_u16(code).map_err(|_| bad("the status code is not one"))?;
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let headers = header_map(head, parsed.headers)?;
    let options = connection_options(&headers);
    let declared = framing_of(&headers, version)?;
    let without_body = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || method == Method::HEAD;
    let mut keep_alive = !options.close && (version == Version::HTTP_11 || options.keep_alive);
    let framing = if method == Method::CONNECT && status.is_success() {
        BodyFraming::None
    } else if without_body {
        // A 204 that announces content may be followed by it: nobody can tell, so the connection is not used again.
        let announces = !matches!(declared, None | Some(BodyFraming::Length(0)));
        keep_alive &= !(status == StatusCode::NO_CONTENT && announces);
        BodyFraming::None
    } else {
        declared.unwrap_or(BodyFraming::UntilClose)
    };
    keep_alive &= framing != BodyFraming::UntilClose;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    Ok(ResponseHead { response, framing, keep_alive })
}

/// Whether the request line ends in a version at all, be it one that we do not speak.
fn has_version(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ').skip(2);
    match (words.next().and_then(|word| word.strip_prefix(b"HTTP/")), words.next()) {
        (Some([major, b'.', minor]), None) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY_HEADERS,
        httparse::Error::Version => {
            HeadError { status: 505, reason: "the version is not HTTP/1.0 or HTTP/1.1" }
        }
        httparse::Error::HeaderName => bad("a header name is malformed"),
        httparse::Error::HeaderValue => bad("a header value is malformed"),
        httparse::Error::Status => bad("the status line is malformed"),
        httparse::Error::NewLine | httparse::Error::Token => bad("the first line is malformed"),
    }
}

/// Fields in their order, values byte for byte; they share the memory of `head`.
pub(super) fn header_map(head: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad("a header name is malformed"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| bad("a header value has a control character"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The target in canonical form, and the authority when the target names one.
fn parse_target(method: &Method, target: Bytes) -> Result<(Uri, Option<Authority>), HeadError> {
    const WRONG: HeadError = bad("the request target is malformed");
    if memchr::memchr(b'#', &target).is_some() {
        return Err(bad("the request target has a fragment"));
    }
    if method == Method::CONNECT {
        let authority = Authority::from_maybe_shared(target).map_err(|_| WRONG)?;
        if authority.port_u16().is_none() {
            return Err(bad("a CONNECT target has no port"));
        }
        check_authority(&authority)?;
        return Ok((Uri::from(authority.clone()), Some(authority)));
    }
    if target.first() == Some(&b'/') {
        return Ok((Uri::from(PathAndQuery::from_maybe_shared(target).map_err(|_| WRONG)?), None));
    }
    if &target[..] == b"*" {
        return if method == Method::OPTIONS {
            Ok((Uri::from(PathAndQuery::from_static("*")), None))
        } else {
            Err(bad("the target * is for OPTIONS alone"))
        };
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| WRONG)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(WRONG) };
    if !matches!(scheme, "http" | "https") {
        return Err(bad("the target's scheme is not http or https"));
    }
    check_authority(authority)?;
    let authority = authority.clone();
    let path = match uri.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.clone(),
        Some(path) => PathAndQuery::try_from(format!("/{}", path.as_str())).map_err(|_| WRONG)?,
        None => PathAndQuery::from_static("/"),
    };
    Ok((Uri::from(path), Some(authority)))
}

/// RFC 9112 3.2: exactly one Host in HTTP/1.1; the target's own authority wins and Host is rewritten to it.
fn settle_host(
    headers: &mut HeaderMap,
    version: Version,
    authority: Option<Authority>,
) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, more) = (hosts.next(), hosts.next().is_some());
    if more {
        return Err(bad("the Host field is repeated"));
    }
    match first {
        None if version == Version::HTTP_11 => return Err(bad("the Host field is missing")),
        None => {}
        Some(host) => {
            let host =
                Authority::try_from(host.as_bytes()).map_err(|_| bad("the Host field is malformed"))?;
            check_authority(&host)?;
        }
    }
    if let Some(authority) = authority {
        let host =
            HeaderValue::try_from(authority.as_str()).map_err(|_| bad("the authority is malformed"))?;
        headers.insert(HOST, host);
    }
    Ok(())
}

fn connection_options(headers: &HeaderMap) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            options.close |= token.eq_ignore_ascii_case(b"close");
            options.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            options.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
    }
    options
}

/// The framing that the fields declare; stricter than RFC 9112 6.3, which lets a proxy repair some of what we refuse.
fn framing_of(headers: &HeaderMap, version: Version) -> Result<Option<BodyFraming>, HeadError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (coding, length) = (codings.next(), lengths.next());
    if codings.next().is_some() {
        return Err(bad("the Transfer-Encoding field is repeated"));
    }
    if lengths.next().is_some() {
        return Err(bad("the Content-Length field is repeated"));
    }
    match (coding, length) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(bad("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if version == Version::HTTP_10 => Err(bad("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Some(BodyFraming::Chunked))
        }
        (Some(coding), None) => Err(unknown_coding(coding.as_bytes())),
        (None, Some(length)) => Ok(Some(BodyFraming::Length(parse_length(length.as_bytes())?))),
    }
}

/// RFC 9112 6.1 and 6.3: 501 for a coding that we do not know, 400 when the end of the body could not be found anyway.
fn unknown_coding(value: &[u8]) -> HeadError {
    let mut tokens = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let is_chunked = |token: &[u8]| token.eq_ignore_ascii_case(b"chunked");
    let last_is_chunked = tokens.next_back().is_some_and(is_chunked);
    if last_is_chunked && !tokens.any(|token| is_chunked(token) || token.is_empty()) {
        HeadError { status: 501, reason: "the transfer coding is not supported" }
    } else {
        bad("the transfer coding is not exactly chunked")
    }
}

pub(super) fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    const WRONG: HeadError = bad("the Content-Length is not a number");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn expectation(headers: &HeaderMap, version: Version) -> Result<bool, HeadError> {
    let mut values = headers.get_all(EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        _ if version == Version::HTTP_10 => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(HeadError { status: 417, reason: "the expectation is not 100-continue" }),
    }
}
