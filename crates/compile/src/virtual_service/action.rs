//! What a VirtualService's HTTP route does with a request, in the model's terms.
//!
//! Invariant: a route that was refused fails its requests; nothing of it is honoured in part.

use std::sync::Arc;

use leno_apis::{Diagnostic, Rule, Spanned, istio::virtual_service as api};
use leno_model::{
    AbortWith, Action, Backend, BackendTarget, Fault, HeaderEdits, HttpRule, Millis, Mirror, PathRewrite,
    Percent, Redirect, RedirectPort, RetryCondition, RetryPolicy, Rewrite, Weight,
};

use super::{RuleObject, matching};
use crate::{
    backends::{self, Context},
    codes,
    output::{Output, origin},
    settings::{MeshSettings, RetryProfile},
};

/// One route.
pub(crate) fn rule(
    context: Context<'_, '_>,
    object: &RuleObject,
    route: &api::HttpRoute,
    out: &mut Output,
) -> HttpRule {
    let given = match &route.action {
        Rule::Ok(given) => given,
        Rule::Refused(because) => {
            let reason = format!("{}: its requests are answered 500", because.message);
            out.report_on(object, Diagnostic::error(codes::RULE_REFUSED, because.at.clone(), reason.clone()));
            return HttpRule {
                name: route.name.as_str().into(),
                origin: origin(object, &route.at),
                action: Action::Fail { status: 500, reason: reason.into() },
                rewrite: Rewrite::default(),
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
                timeout: None,
                retry: RetryPolicy::never(),
                fault: None,
                mirrors: Vec::new(),
            };
        }
    };
    let mut rewrite = rewrite(object, given, out);
    let mut action = action(context, object, given, out);
    if let Some(reason) = rewrite.as_ref().err() {
        action = Action::Fail { status: 500, reason: reason.as_str().into() };
    }
    let mut request_headers = edits(&given.headers.request);
    if let Ok(rewrite) = &mut rewrite {
        take_authority(&mut request_headers, rewrite);
    }
    HttpRule {
        name: route.name.as_str().into(),
        origin: origin(object, &route.at),
        action,
        rewrite: rewrite.unwrap_or_default(),
        request_headers,
        response_headers: edits(&given.headers.response),
        timeout: given
            .timeout
            .as_ref()
            .map(|timeout| Millis::from(timeout.value))
            .filter(|limit| limit.0 > 0),
        retry: retry(context.view.settings, object, given.retries.as_ref(), out),
        fault: given.fault.as_ref().map(fault),
        mirrors: given.mirrors.iter().map(|mirror| self::mirror(context, object, mirror, out)).collect(),
    }
}

fn mirror(context: Context<'_, '_>, object: &RuleObject, given: &api::Mirror, out: &mut Output) -> Mirror {
    Mirror {
        share: Percent::from_percent(given.percentage),
        target: backends::istio(context, object, &given.destination, out),
        origin: origin(object, &given.destination.host.at),
    }
}

fn action(
    context: Context<'_, '_>,
    object: &RuleObject,
    given: &api::HttpAction,
    out: &mut Output,
) -> Action {
    if let Some(redirect) = &given.redirect {
        return Action::Redirect(self::redirect(redirect));
    }
    if let Some(answer) = &given.direct_response {
        let body = String::from_utf8_lossy(&answer.body).as_ref().into();
        return Action::Respond { status: answer.status, body };
    }
    Action::Forward(weighted(context, object, &given.route, out))
}

/// Weighted destinations. Istio: the weight of an only destination does not matter; of several, an absent one is 0.
pub(super) fn weighted(
    context: Context<'_, '_>,
    object: &RuleObject,
    given: &[api::Weighted],
    out: &mut Output,
) -> Vec<Backend> {
    let only = given.len() == 1;
    let mut backends = Vec::with_capacity(given.len());
    for share in given {
        let weight = if only { 1 } else { share.weight.as_ref().map_or(0, |weight| weight.value) };
        let (target, headers, at) = match &share.target {
            Rule::Ok(target) => {
                let found = backends::istio(context, object, &target.destination, out);
                (found, target.headers.clone(), target.destination.host.at.clone())
            }
            Rule::Refused(because) => {
                let reason = because.message.as_str().into();
                let status = backends::ISTIO_UNRESOLVED;
                (
                    BackendTarget::Unresolved { status, reason },
                    api::HeaderChanges::default(),
                    because.at.clone(),
                )
            }
        };
        backends.push(Backend {
            weight: Weight(weight),
            target,
            request_headers: edits(&headers.request),
            response_headers: edits(&headers.response),
            timeout: None,
            origin: origin(object, &at),
        });
    }
    backends
}

fn redirect(given: &api::Redirect) -> Redirect {
    let port = match (given.port, given.derive_port) {
        (Some(port), _) => RedirectPort::Port(port),
        (None, Some(api::DerivePort::FromRequestPort)) => RedirectPort::FromRequest,
        (None, Some(api::DerivePort::FromProtocolDefault)) => RedirectPort::ProtocolDefault,
        // Envoy keeps the port of the request only while scheme and host are the request's.
        (None, None) if given.scheme.is_none() && given.authority.is_none() => RedirectPort::FromRequest,
        (None, None) => RedirectPort::ProtocolDefault,
    };
    let full = given.uri.as_deref().map(|uri| PathRewrite::Full(uri.into()));
    let prefix = given.prefix_rewrite.as_deref().map(|prefix| PathRewrite::Prefix(prefix.into()));
    Redirect {
        scheme: given.scheme.as_deref().map(Into::into),
        host: given.authority.as_deref().map(Into::into),
        port,
        path: full.or(prefix),
        status: given.code,
    }
}

fn rewrite(object: &RuleObject, given: &api::HttpAction, out: &mut Output) -> Result<Rewrite, String> {
    let Some(given) = &given.rewrite else { return Ok(Rewrite::default()) };
    let path = match (&given.uri, &given.uri_regex) {
        (Some(uri), _) => Some(PathRewrite::Prefix(uri.as_str().into())),
        (None, Some(by)) => match matching::regex(&by.pattern) {
            Ok(pattern) => {
                Some(PathRewrite::Regex { pattern, substitution: by.substitution.as_str().into() })
            }
            Err(diagnostic) => {
                let reason = diagnostic.message.clone();
                out.report_on(object, *diagnostic);
                return Err(reason);
            }
        },
        (None, None) => None,
    };
    Ok(Rewrite { path, authority: given.authority.as_deref().map(Into::into) })
}

/// Header changes; names in lower case.
fn edits(given: &api::HeaderOperations) -> HeaderEdits {
    let pairs = |map: &std::collections::BTreeMap<String, Spanned<String>>| -> Vec<(Arc<str>, Arc<str>)> {
        map.iter().map(|(name, value)| (name.to_ascii_lowercase().into(), value.as_str().into())).collect()
    };
    HeaderEdits {
        set: pairs(&given.set),
        add: pairs(&given.add),
        remove: given.remove.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
    }
}

/// Istio: setting `host` (or `:authority`) rewrites the authority.
fn take_authority(headers: &mut HeaderEdits, rewrite: &mut Rewrite) {
    let is_authority = |name: &str| matches!(name, "host" | ":authority");
    if let Some((_, value)) = headers.set.iter().find(|(name, _)| is_authority(name)) {
        rewrite.authority.get_or_insert_with(|| value.clone());
    }
    headers.set.retain(|(name, _)| !is_authority(name));
}

fn fault(given: &api::Fault) -> Fault {
    Fault {
        delay: given
            .delay
            .as_ref()
            .map(|delay| (Percent::from_percent(delay.percentage), Millis::from(delay.fixed))),
        abort: given.abort.as_ref().map(|abort| {
            let with = match abort.with {
                api::AbortWith::Http(status) => AbortWith::Http(status),
                api::AbortWith::Grpc(status) => AbortWith::Grpc(status),
            };
            (Percent::from_percent(abort.percentage), with)
        }),
    }
}

/// The retries of routes that do not say.
pub(crate) fn default_retry(settings: &MeshSettings) -> RetryPolicy {
    match settings.retries {
        RetryProfile::Safe => RetryPolicy::safe(),
        RetryProfile::Compat => RetryPolicy { on: istio_default(), explicit: true, ..RetryPolicy::safe() },
    }
}

/// CONTRACTS section 6.
fn istio_default() -> Vec<RetryCondition> {
    vec![
        RetryCondition::ConnectFailure,
        RetryCondition::RefusedStream,
        RetryCondition::Unavailable,
        RetryCondition::Cancelled,
        RetryCondition::Status(503),
    ]
}

fn retry(
    settings: &MeshSettings,
    object: &RuleObject,
    given: Option<&Spanned<api::Retries>>,
    out: &mut Output,
) -> RetryPolicy {
    let default = default_retry(settings);
    let Some(given) = given else { return default };
    let (on, explicit) = match &given.retry_on {
        Some(text) => (conditions(object, text, out), true),
        None => (default.on, default.explicit),
    };
    RetryPolicy {
        attempts: u8::try_from(given.attempts).unwrap_or(u8::MAX),
        per_try_timeout: given.per_try_timeout.map(Millis::from).filter(|limit| limit.0 > 0),
        on,
        backoff: given.backoff.map_or(default.backoff, Millis::from),
        explicit,
    }
}

fn conditions(object: &RuleObject, text: &Spanned<String>, out: &mut Output) -> Vec<RetryCondition> {
    let mut found = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match condition(word) {
            Some(condition) if !found.contains(&condition) => found.push(condition),
            Some(_) => {}
            None => {
                let message =
                    format!("{word:?} is not a retry condition that this release knows; the others count");
                out.report_on(
                    object,
                    Diagnostic::warning(codes::UNKNOWN_RETRY_CONDITION, text.at.clone(), message),
                );
            }
        }
    }
    found
}

fn condition(word: &str) -> Option<RetryCondition> {
    Some(match word {
        "5xx" => RetryCondition::ServerError,
        "gateway-error" => RetryCondition::GatewayError,
        "reset" => RetryCondition::Reset,
        "reset-before-request" => RetryCondition::ResetBeforeRequest,
        "connect-failure" => RetryCondition::ConnectFailure,
        "refused-stream" => RetryCondition::RefusedStream,
        "retriable-4xx" => RetryCondition::Conflict,
        // Envoy retries the codes of a list here, of which Istio's default is 503 alone.
        "retriable-status-codes" => RetryCondition::Status(503),
        "cancelled" => RetryCondition::Cancelled,
        "deadline-exceeded" => RetryCondition::DeadlineExceeded,
        "internal" => RetryCondition::Internal,
        "resource-exhausted" => RetryCondition::ResourceExhausted,
        "unavailable" => RetryCondition::Unavailable,
        code => RetryCondition::Status(code.parse().ok().filter(|code| (100..600).contains(code))?),
    })
}
