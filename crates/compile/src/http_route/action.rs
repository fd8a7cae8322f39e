//! What a rule of an HTTPRoute or GRPCRoute does with a request, in the model's terms.
//!
//! Invariant: a rule that was refused fails its requests; so does the share of a backend that does not resolve or whose
//! filters cannot be honoured.

use leno_apis::{
    Object, Rule,
    gateway::{
        BackendRef, GrpcRoute, HttpRoute, grpc_route,
        http_filters::{Filter, FilterAction, HeaderModifier, PathModifier, Redirect as GivenRedirect},
        http_route as api,
    },
};
use leno_model::{
    Action, Backend, BackendTarget, HeaderEdits, HttpRule, Millis, Mirror, Origin, PathRewrite, Percent,
    Redirect, RedirectPort, RetryPolicy, Rewrite, Weight,
};

use crate::{
    backends::{self, Context, Grants},
    output::origin,
    virtual_service::action::default_retry,
};

/// Gateway API: what cannot be served is answered 500.
const HTTP_FAILURE: u16 = 500;
/// Gateway API: for gRPC that is UNAVAILABLE, which is what HTTP's 503 means to a gRPC client.
const GRPC_FAILURE: u16 = 503;

/// A rule of an HTTPRoute.
pub(crate) fn http(
    context: Context<'_, '_>,
    object: &Object<HttpRoute>,
    rule: &api::HttpRule,
    grants: Grants,
) -> HttpRule {
    let writer = Writer { context, object, failure: HTTP_FAILURE, grants };
    let name = rule.name.as_deref().unwrap_or("");
    match &rule.action {
        Rule::Ok(given) => {
            let attempt = given.backend_request_timeout.as_ref().map(|limit| Millis::from(limit.value));
            let mut built =
                writer.rule(name, origin(object, &rule.at), &given.filters, &given.backends, attempt);
            let request = given.request_timeout.as_ref().map(|limit| Millis::from(limit.value));
            built.timeout = request.filter(|limit| limit.0 > 0);
            built
        }
        Rule::Refused(because) => writer.failed(name, origin(object, &rule.at), &because.message),
    }
}

/// A rule of a GRPCRoute.
pub(crate) fn grpc(
    context: Context<'_, '_>,
    object: &Object<GrpcRoute>,
    rule: &grpc_route::GrpcRule,
    grants: Grants,
) -> HttpRule {
    let writer = Writer { context, object, failure: GRPC_FAILURE, grants };
    let name = rule.name.as_deref().unwrap_or("");
    match &rule.action {
        Rule::Ok(given) => writer.rule(name, origin(object, &rule.at), &given.filters, &given.backends, None),
        Rule::Refused(because) => writer.failed(name, origin(object, &rule.at), &because.message),
    }
}

struct Writer<'c, 'w, S> {
    context: Context<'c, 'w>,
    object: &'c Object<S>,
    failure: u16,
    grants: Grants,
}

impl<S> Writer<'_, '_, S> {
    fn failed(&self, name: &str, origin: Origin, reason: &str) -> HttpRule {
        let action = Action::Fail { status: self.failure, reason: reason.into() };
        HttpRule { retry: RetryPolicy::never(), ..self.empty(name, origin, action) }
    }

    fn empty(&self, name: &str, origin: Origin, action: Action) -> HttpRule {
        HttpRule {
            name: name.into(),
            origin,
            action,
            rewrite: Rewrite::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeout: None,
            retry: default_retry(self.context.view.settings),
            fault: None,
            mirrors: Vec::new(),
        }
    }

    fn rule(
        &self,
        name: &str,
        origin: Origin,
        filters: &[Filter],
        given: &[api::HttpBackend],
        attempt: Option<Millis>,
    ) -> HttpRule {
        let attempt = attempt.filter(|limit| limit.0 > 0);
        let backends = given.iter().map(|backend| self.backend(backend, attempt)).collect();
        let mut rule = self.empty(name, origin, Action::Forward(backends));
        for filter in filters {
            match &filter.action {
                FilterAction::RequestHeaders(given) => edit(&mut rule.request_headers, given),
                FilterAction::ResponseHeaders(given) => edit(&mut rule.response_headers, given),
                FilterAction::Redirect(given) => rule.action = Action::Redirect(redirect(given)),
                FilterAction::Rewrite(given) => {
                    rule.rewrite = Rewrite {
                        path: given.path.as_ref().map(path),
                        authority: given.hostname.as_deref().map(Into::into),
                    };
                }
                FilterAction::Mirror(given) => {
                    // A mirror that does not resolve has nowhere to go; the route's status says so.
                    if let Ok(target) =
                        backends::gateway_api(self.context.view, self.object, &given.backend, self.grants)
                    {
                        let origin = crate::output::origin(self.object, &given.backend.at);
                        let share = Percent::from_percent(given.percentage);
                        rule.mirrors.push(Mirror { share, target, origin });
                    }
                }
            }
        }
        rule
    }

    fn backend(&self, given: &api::HttpBackend, timeout: Option<Millis>) -> Backend {
        let mut backend = Backend {
            weight: Weight(given.weight),
            target: BackendTarget::Unresolved { status: self.failure, reason: "".into() },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeout,
            origin: Origin::default(),
        };
        let unresolved =
            |reason: &str| BackendTarget::Unresolved { status: self.failure, reason: reason.into() };
        match &given.target {
            Rule::Refused(because) => {
                backend.origin = origin(self.object, &because.at);
                backend.target = unresolved(&because.message);
            }
            Rule::Ok(target) => {
                backend.origin = origin(self.object, &target.backend.at);
                backend.target = self.target(&target.backend);
                for filter in &target.filters {
                    match &filter.action {
                        FilterAction::RequestHeaders(given) => edit(&mut backend.request_headers, given),
                        FilterAction::ResponseHeaders(given) => edit(&mut backend.response_headers, given),
                        FilterAction::Redirect(_) | FilterAction::Rewrite(_) | FilterAction::Mirror(_) => {
                            backend.target = unresolved(BACKEND_FILTER);
                        }
                    }
                }
            }
        }
        backend
    }

    fn target(&self, given: &BackendRef) -> BackendTarget {
        backends::gateway_api(self.context.view, self.object, given, self.grants).unwrap_or_else(
            |unresolved| BackendTarget::Unresolved {
                status: self.failure,
                reason: unresolved.message.as_str().into(),
            },
        )
    }
}

/// What is said of filters that a backend cannot have.
pub(crate) const BACKEND_FILTER: &str =
    "only header modifiers are supported as filters of a backend by this release: its share fails";

fn edit(edits: &mut HeaderEdits, given: &HeaderModifier) {
    let pair = |header: &leno_apis::gateway::http_filters::Header| {
        (header.name.to_ascii_lowercase().into(), header.value.as_str().into())
    };
    edits.set.extend(given.set.iter().map(pair));
    edits.add.extend(given.add.iter().map(pair));
    edits.remove.extend(given.remove.iter().map(|name| name.to_ascii_lowercase().into()));
}

fn redirect(given: &GivenRedirect) -> Redirect {
    Redirect {
        scheme: given.scheme.as_deref().map(Into::into),
        host: given.hostname.as_deref().map(Into::into),
        port: given.port.map_or(RedirectPort::Derived, RedirectPort::Port),
        path: given.path.as_ref().map(path),
        status: given.status_code,
    }
}

fn path(given: &PathModifier) -> PathRewrite {
    match given {
        PathModifier::ReplaceFullPath(path) => PathRewrite::Full(path.as_str().into()),
        PathModifier::ReplacePrefixMatch(prefix) => PathRewrite::SegmentPrefix(prefix.as_str().into()),
    }
}
