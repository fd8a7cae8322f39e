//! What a VirtualService's HTTP route does with a request.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Destination, Weighted, destination, weighted};
use crate::codes;
use crate::decode::{
    Cursor, Fields, boolean, choice, go_duration, integer, name, percent, port, spanned, text, unsigned,
};
use crate::diagnostic::{Refused, Spanned};

/// What happens to a request that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAction {
    /// Destinations and their shares; empty with `redirect` or `direct_response`.
    pub route: Vec<Weighted>,
    /// Answer with a redirect.
    pub redirect: Option<Redirect>,
    /// Answer with this.
    pub direct_response: Option<DirectResponse>,
    /// Change path or host.
    pub rewrite: Option<Rewrite>,
    /// Change headers.
    pub headers: HeaderChanges,
    /// Time for the whole request, retries included; zero means none.
    pub timeout: Option<Spanned<Duration>>,
    /// Try again.
    pub retries: Option<Spanned<Retries>>,
    /// Break some requests on purpose.
    pub fault: Option<Fault>,
    /// Send copies elsewhere.
    pub mirrors: Vec<Mirror>,
}

/// Changes of headers, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderOperations,
    /// Of the response.
    pub response: HeaderOperations,
}

/// Changes of headers, one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// Replace.
    pub set: BTreeMap<String, Spanned<String>>,
    /// Append.
    pub add: BTreeMap<String, Spanned<String>>,
    /// Remove.
    pub remove: Vec<Spanned<String>>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The whole path.
    pub uri: Option<String>,
    /// In place of the prefix that matched.
    pub prefix_rewrite: Option<String>,
    /// Host.
    pub authority: Option<String>,
    /// Scheme.
    pub scheme: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Where the port comes from.
    pub derive_port: Option<DerivePort>,
    /// Status; 301 when the text does not say.
    pub code: u16,
}

/// Where the port of a redirect comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DerivePort {
    /// 80 for http, 443 for https.
    FromProtocolDefault,
    /// The request's.
    FromRequestPort,
}

/// An answer without a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// A change of the path or host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// In place of what matched: the prefix, or the whole path.
    pub uri: Option<String>,
    /// Host.
    pub authority: Option<String>,
    /// By regular expression.
    pub uri_regex: Option<RegexRewrite>,
}

/// A replacement by regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexRewrite {
    /// What is replaced.
    pub pattern: Spanned<String>,
    /// By what; `\1` is the first group.
    pub substitution: Spanned<String>,
}

/// When and how often to try again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// How often; 0 is never.
    pub attempts: u32,
    /// Time for each.
    pub per_try_timeout: Option<Duration>,
    /// Conditions, separated by commas.
    pub retry_on: Option<Spanned<String>>,
    /// Wait before the first.
    pub backoff: Option<Duration>,
}

/// Broken requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Held for a while.
    pub delay: Option<Delay>,
    /// Answered with an error.
    pub abort: Option<Abort>,
}

/// Requests that are held.
#[derive(Clone, Debug, PartialEq)]
pub struct Delay {
    /// How long.
    pub fixed: Duration,
    /// Share of the requests, 0 to 100.
    pub percentage: f64,
}

/// Requests that are answered with an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Abort {
    /// With what.
    pub with: AbortWith,
    /// Share of the requests, 0 to 100.
    pub percentage: f64,
}

/// The error of an abort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortWith {
    /// A status of HTTP.
    Http(u16),
    /// A status of gRPC, such as 14 for `UNAVAILABLE`.
    Grpc(u8),
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Share of the requests, 0 to 100.
    pub percentage: f64,
}

pub(super) fn http_action(o: &mut Fields<'_>) -> Option<HttpAction> {
    o.at_most_one(&["route", "redirect", "directResponse"]);
    o.at_most_one(&["redirect", "rewrite"]);
    o.unsupported(
        "corsPolicy",
        Refused::Field,
        "not supported by this release: the service answers preflight requests itself",
    );
    o.unsupported(
        "delegate",
        Refused::Rule,
        "delegation to another VirtualService is not supported by this release",
    );
    let mirrors = mirrors(o);
    let action = HttpAction {
        route: o.list("route", weighted),
        redirect: o.opt("redirect", redirect),
        direct_response: o.opt("directResponse", direct_response),
        rewrite: o.opt("rewrite", rewrite),
        headers: o.or("headers", HeaderChanges::default(), header_changes)?,
        timeout: o.opt("timeout", spanned(go_duration)),
        retries: o.opt("retries", spanned(retries)),
        fault: o.opt("fault", fault),
        mirrors,
    };
    if action.route.is_empty() && action.redirect.is_none() && action.direct_response.is_none() {
        let message = "one of `route`, `redirect` and `directResponse` is required";
        o.here().refuse(codes::MISSING_FIELD, message, None);
    }
    Some(action)
}

fn mirrors(o: &mut Fields<'_>) -> Vec<Mirror> {
    o.at_most_one(&["mirror", "mirrors"]);
    o.at_most_one(&["mirrorPercentage", "mirrorPercent", "mirror_percent"]);
    let share = o.opt("mirrorPercentage", percentage);
    let whole = |value: Cursor<'_>| integer::<i64>(0, 100)(value).map(|percent| percent as f64);
    let old = o.opt("mirrorPercent", whole);
    let older = o.opt("mirror_percent", whole);
    let mut mirrors = o.list("mirrors", |value| {
        value.object(|o| {
            Some(Mirror {
                destination: o.req("destination", destination)?,
                percentage: o.or("percentage", 100.0, percentage)?,
            })
        })
    });
    if let Some(destination) = o.opt("mirror", destination) {
        mirrors.push(Mirror { destination, percentage: share.or(old).or(older).unwrap_or(100.0) });
    }
    mirrors
}

fn percentage(value: Cursor<'_>) -> Option<f64> {
    // proto3: an absent number is zero.
    value.object(|o| o.or("value", 0.0, percent))
}

pub(super) fn header_changes(value: Cursor<'_>) -> Option<HeaderChanges> {
    value.object(|o| {
        Some(HeaderChanges {
            request: o.or("request", HeaderOperations::default(), header_operations)?,
            response: o.or("response", HeaderOperations::default(), header_operations)?,
        })
    })
}

fn header_operations(value: Cursor<'_>) -> Option<HeaderOperations> {
    value.object(|o| {
        Some(HeaderOperations {
            set: o.map("set", spanned(text)),
            add: o.map("add", spanned(text)),
            remove: o.list("remove", spanned(name)),
        })
    })
}

fn redirect(value: Cursor<'_>) -> Option<Redirect> {
    value.object(|o| {
        o.at_most_one(&["uri", "prefixRewrite"]);
        o.at_most_one(&["port", "derivePort"]);
        Some(Redirect {
            uri: o.opt("uri", name),
            prefix_rewrite: o.opt("prefixRewrite", name),
            authority: o.opt("authority", name),
            scheme: o.opt("scheme", name),
            port: o.opt("port", port),
            derive_port: o.opt(
                "derivePort",
                choice(&[
                    ("FROM_PROTOCOL_DEFAULT", DerivePort::FromProtocolDefault),
                    ("FROM_REQUEST_PORT", DerivePort::FromRequestPort),
                ]),
            ),
            code: o.or("redirectCode", 301, redirect_code)?,
        })
    })
}

fn redirect_code(value: Cursor<'_>) -> Option<u16> {
    let code = integer::<u16>(0, 999)(value.clone())?;
    match code {
        0 => Some(301),
        301 | 302 | 303 | 307 | 308 => Some(code),
        _ => {
            value.invalid(format!("{code} is not one of 301, 302, 303, 307 and 308"));
            None
        }
    }
}

fn direct_response(value: Cursor<'_>) -> Option<DirectResponse> {
    value.object(|o| {
        let body = o.or("body", Vec::new(), |value| {
            value.object(|o| {
                o.at_most_one(&["string", "bytes"]);
                let bytes = o.opt("bytes", base64_bytes);
                Some(o.opt("string", text).map(String::into_bytes).or(bytes).unwrap_or_default())
            })
        });
        Some(DirectResponse { status: o.req("status", integer(200, 599))?, body: body? })
    })
}

fn base64_bytes(value: Cursor<'_>) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text(value.clone())?) else {
        value.invalid("not base64");
        return None;
    };
    if std::str::from_utf8(&bytes).is_err() {
        value.refuse(
            codes::UNSUPPORTED_VALUE,
            "a body that is not text is not supported by this release",
            None,
        );
        return None;
    }
    Some(bytes)
}

fn rewrite(value: Cursor<'_>) -> Option<Rewrite> {
    value.object(|o| {
        o.at_most_one(&["uri", "uriRegexRewrite"]);
        Some(Rewrite {
            uri: o.opt("uri", name),
            authority: o.opt("authority", name),
            uri_regex: o.opt("uriRegexRewrite", |value| {
                value.object(|o| {
                    Some(RegexRewrite {
                        pattern: o.req("match", spanned(name))?,
                        substitution: o.req("rewrite", spanned(text))?,
                    })
                })
            }),
        })
    })
}

fn retries(value: Cursor<'_>) -> Option<Retries> {
    value.object(|o| {
        if o.take("retryRemoteLocalities").and_then(boolean) == Some(true) {
            let message = "retryRemoteLocalities is not supported by this release";
            o.here().refuse(codes::UNSUPPORTED_FIELD, message, None);
        }
        o.unsupported(
            "retryIgnorePreviousHosts",
            Refused::Field,
            "not supported by this release: a retry avoids the endpoints that were tried, where there are others",
        );
        Some(Retries {
            attempts: o.or("attempts", 0, integer(0, 100))?,
            per_try_timeout: o.opt("perTryTimeout", go_duration),
            retry_on: o.opt("retryOn", spanned(text)),
            backoff: o.opt("backoff", go_duration),
        })
    })
}

fn fault(value: Cursor<'_>) -> Option<Fault> {
    value.object(|o| Some(Fault { delay: o.opt("delay", delay), abort: o.opt("abort", abort) }))
}

fn delay(value: Cursor<'_>) -> Option<Delay> {
    value.object(|o| {
        o.at_most_one(&["percentage", "percent"]);
        o.at_most_one(&["fixedDelay", "exponentialDelay"]);
        o.unsupported(
            "exponentialDelay",
            Refused::Rule,
            "exponential delays are not supported by this release",
        );
        let old = o.opt("percent", unsigned).map(f64::from);
        Some(Delay {
            percentage: o.or("percentage", old.unwrap_or(100.0), percentage)?,
            fixed: o.req("fixedDelay", go_duration)?,
        })
    })
}

fn abort(value: Cursor<'_>) -> Option<Abort> {
    value.object(|o| {
        o.at_most_one(&["httpStatus", "grpcStatus", "http2Error"]);
        let percentage = o.or("percentage", 100.0, percentage);
        let http = o.opt("httpStatus", integer(200, 599)).map(AbortWith::Http);
        let grpc = o.opt("grpcStatus", grpc_status).map(AbortWith::Grpc);
        o.unsupported("http2Error", Refused::Rule, "errors of HTTP/2 are not supported by this release");
        let Some(with) = http.or(grpc) else {
            o.here().refuse(codes::MISSING_FIELD, "one of `httpStatus` and `grpcStatus` is required", None);
            return None;
        };
        Some(Abort { with, percentage: percentage? })
    })
}

const GRPC_STATUS: &[(&str, u8)] = &[
    ("OK", 0),
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("UNAUTHENTICATED", 16),
];

fn grpc_status(value: Cursor<'_>) -> Option<u8> {
    match text(value.clone())?.parse::<u8>() {
        Ok(code) if code <= 16 => Some(code),
        _ => choice(GRPC_STATUS)(value),
    }
}
