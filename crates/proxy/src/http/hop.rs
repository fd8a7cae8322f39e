//! Translates messages between the proxy's canonical form and what may travel over one hop.
//!
//! Canonical: the URI is origin-form (or `*`, or the authority for CONNECT), `Host` holds the authority, and no field is left
//! that speaks about one connection. Every forwarded message passes here, in both directions.
//!
//! Invariant: a field that means something to one hop never reaches the next; a client cannot name an end-to-end field
//! in `Connection` to have it removed.

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, request};
use smallvec::SmallVec;

use super::h1::HeadError;
use super::settings::HeadLimits;

const fn bad(reason: &'static str) -> HeadError {
    HeadError { status: 400, reason }
}

/// The authority that a canonical request is for.
pub fn authority(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).and_then(|host| host.to_str().ok())
}

/// Removes what belongs to one hop: the fields of RFC 9110 7.6.1 and those that `Connection` names. `TE` stays when it
/// says exactly `trailers`, which every hop of ours honours (gRPC asks for it).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: SmallVec<[HeaderName; 4]> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| *name != TE && !is_end_to_end(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let asks_trailers = headers.get_all(TE).iter().any(|value| {
            value
                .as_bytes()
                .split(|b| *b == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        });
        headers.remove(TE);
        if asks_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Makes a received request fit to forward: without hop-by-hop fields and `Expect`, which this hop has answered. With
/// `keep_upgrade` an offer to change protocols stays (HTTP/1.1 only), in the `Upgrade` field alone.
pub fn prepare_request(headers: &mut HeaderMap, keep_upgrade: bool) {
    let upgrade = if keep_upgrade { offered_upgrade(headers) } else { None };
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
    }
}

/// Makes a prepared request fit for its next hop: only HTTP/1.1 can offer to change protocols, and what edits of the user's
/// added about a connection is not theirs to say.
pub fn for_version(headers: &mut HeaderMap, keep_upgrade: bool) {
    let upgrade = if keep_upgrade { headers.get(UPGRADE).cloned() } else { None };
    headers.remove(CONNECTION);
    strip_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
    }
}

/// Makes a received response fit to pass on. A 101 keeps its `Upgrade` field.
pub fn prepare_response(headers: &mut HeaderMap, switching: bool) {
    let upgrade = if switching { headers.get(UPGRADE).cloned() } else { None };
    strip_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
    }
}

/// The protocol that an HTTP/1.1 request offers to change to, if we let it: WebSocket and nothing else. What follows the
/// change is judged by nobody, and `h2c` would be more requests.
pub fn offered_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let websocket = |value: &HeaderValue| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    (offers && headers.get_all(UPGRADE).iter().any(websocket)).then(|| HeaderValue::from_static("websocket"))
}

/// Fields that no client may have removed by naming them in `Connection`.
fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "date"
            | "trailer"
            | "forwarded"
            | "traceparent"
            | "tracestate"
            | "x-request-id"
            | "expect"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-leno-")
        || name.starts_with("x-envoy-")
        || name.starts_with("grpc-")
}

/// RFC 9110 6.5.1: fields for framing, routing, request modifiers, authentication and content cannot come in trailers.
pub fn is_allowed_in_trailers(name: &HeaderName) -> bool {
    let name = name.as_str();
    let forbidden = matches!(
        name,
        "age"
            | "authorization"
            | "cache-control"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "expect"
            | "expires"
            | "forwarded"
            | "host"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "keep-alive"
            | "location"
            | "max-forwards"
            | "pragma"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "range"
            | "retry-after"
            | "set-cookie"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "vary"
            | "via"
            | "warning"
            | "www-authenticate"
            | "x-request-id"
            | "x-real-ip"
    );
    !(forbidden
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-leno-")
        || name.starts_with("x-envoy-"))
}

/// Drops the trailers that are not allowed.
pub fn keep_allowed_trailers(trailers: &mut HeaderMap) {
    if trailers.keys().all(is_allowed_in_trailers) {
        return;
    }
    let forbidden: SmallVec<[HeaderName; 4]> =
        trailers.keys().filter(|name| !is_allowed_in_trailers(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// RFC 9113 8.2.2 and 8.3: checks what h2 leaves to us and gives the request its canonical form.
pub(super) fn request_from_h2(
    mut parts: request::Parts,
    limits: &HeadLimits,
) -> Result<request::Parts, HeadError> {
    let headers = &mut parts.headers;
    if headers.len() > limits.max_headers {
        return Err(HeadError { status: 431, reason: "too many header fields" });
    }
    refuse_connection_fields(headers)?;
    refuse_outer_space(headers)?;
    if let Some(host) = headers.get(HOST) {
        if headers.get_all(HOST).iter().count() > 1 {
            return Err(bad("the Host field is repeated"));
        }
        let host = Authority::try_from(host.as_bytes()).map_err(|_| bad("the Host field is malformed"))?;
        check_authority(&host)?;
        let differs = parts.uri.authority().is_some_and(|a| !a.as_str().eq_ignore_ascii_case(host.as_str()));
        if differs {
            return Err(bad("the Host field differs from :authority"));
        }
    }
    if let Some(authority) = parts.uri.authority() {
        check_authority(authority)?;
        let host =
            HeaderValue::try_from(authority.as_str()).map_err(|_| bad("the authority is malformed"))?;
        headers.insert(HOST, host);
    } else if !headers.contains_key(HOST) {
        return Err(bad("neither :authority nor Host"));
    }
    join_cookies(headers)?;
    if parts.method != Method::CONNECT {
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.as_str().len() > limits.max_uri_bytes {
            return Err(HeadError { status: 414, reason: "the request target is too long" });
        }
        let is_star = path.as_str() == "*";
        if is_star && parts.method != Method::OPTIONS {
            return Err(bad("the target * is for OPTIONS alone"));
        }
        if !is_star && !path.as_str().starts_with('/') {
            return Err(bad("the path is malformed"));
        }
        parts.uri = Uri::from(path);
    }
    Ok(parts)
}

fn refuse_connection_fields(headers: &HeaderMap) -> Result<(), HeadError> {
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        if headers.contains_key(name) {
            return Err(bad("a connection-specific field in HTTP/2"));
        }
    }
    if headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(bad("te is not trailers"));
    }
    Ok(())
}

/// RFC 9113 8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character." HTTP/1.1 takes such space off, so
/// that the application would read another value than the one that was judged.
fn refuse_outer_space(headers: &HeaderMap) -> Result<(), HeadError> {
    if headers.values().any(|value| value.as_bytes() != value.as_bytes().trim_ascii()) {
        return Err(bad("a field value begins or ends with white space"));
    }
    Ok(())
}

/// An authority is a host, without user information, and a port that is one.
pub(super) fn check_authority(authority: &Authority) -> Result<(), HeadError> {
    let text = authority.as_str();
    let host = authority.host();
    let port = text.strip_prefix(host).ok_or(bad("the authority has user information"))?;
    let port_is_fine = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
    };
    if host.is_empty() || text.contains('@') || !port_is_fine {
        return Err(bad("the authority is malformed"));
    }
    Ok(())
}

/// RFC 9113 8.2.3: cookie crumbs become one field before anything else sees them.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), HeadError> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return Ok(());
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::try_from(all.join(&b"; "[..])).map_err(|_| bad("a cookie is malformed"))?;
    headers.insert(COOKIE, joined);
    Ok(())
}

/// From canonical form to an HTTP/2 request: the authority and scheme go into the URI.
pub(super) fn request_to_h2(
    mut parts: request::Parts,
    scheme: &Scheme,
) -> Result<request::Parts, &'static str> {
    const NO_HOST: &str = "it has no usable Host field";
    strip_hop_by_hop(&mut parts.headers);
    let host = parts.headers.remove(HOST);
    parts.headers.remove(TRAILER);
    parts.version = http::Version::HTTP_2;
    if parts.method == Method::CONNECT {
        return if parts.uri.authority().is_some() {
            Ok(parts)
        } else {
            Err("a CONNECT without an authority")
        };
    }
    let authority = match host {
        Some(host) => Authority::try_from(host.as_bytes()).map_err(|_| NO_HOST)?,
        None => parts.uri.authority().cloned().ok_or(NO_HOST)?,
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme.clone());
    uri.authority = Some(authority);
    uri.path_and_query =
        Some(parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts.uri = Uri::from_parts(uri).map_err(|_| "its path is malformed")?;
    Ok(parts)
}
