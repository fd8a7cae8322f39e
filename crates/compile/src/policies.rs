//! AuthorizationPolicies: what each says, and which workloads it selects.
//!
//! Invariant: a policy any part of which cannot be honoured is withheld (it denies whatever it selects); it never arrives
//! weakened. Must not know: how a request is judged.

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::{
    AnyObject, Diagnostic, Kind, Object, Spanned,
    istio::{AuthorizationPolicy, authorization_policy as api},
};
use leno_model::{
    Condition, ConditionKey, ConditionValue, IpBlock, Operation, Origin, PathMatch, PolicyAction, PolicyRule,
    Port, Resource, Source, StringMatch,
};

use crate::{
    codes,
    output::{Output, key_of, origin},
    status::{self, ACCEPTED},
    view::{View, selects},
    world::ObjectKey,
};

/// What a policy may select.
pub(crate) struct Subject<'s> {
    pub(crate) namespace: &'s str,
    pub(crate) labels: &'s BTreeMap<String, String>,
    /// Services of its namespace that lead to it.
    pub(crate) services: Vec<&'s str>,
    /// The Gateway it serves, and that one's class.
    pub(crate) gateway: Option<(&'s str, &'s str)>,
}

/// The ids of the policies that select a workload, ordered.
pub(crate) fn selecting(view: &View<'_>, subject: &Subject<'_>) -> Vec<Arc<str>> {
    let mut namespaces = vec![subject.namespace];
    namespaces.extend(view.settings.roots().into_iter().filter(|root| *root != subject.namespace));
    let mut ids = Vec::new();
    for namespace in namespaces {
        for object in view.in_namespace(Kind::AuthorizationPolicy, namespace) {
            let chosen = match object {
                AnyObject::AuthorizationPolicy(policy) => {
                    is_enforced(policy) && chooses(view, policy, subject)
                }
                // What could not be read may have been about anything that its namespace reaches.
                _ => true,
            };
            if chosen {
                ids.push(id(namespace, &object.metadata().name));
            }
        }
    }
    ids.sort();
    ids
}

fn id(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}

fn chooses(view: &View<'_>, policy: &Object<AuthorizationPolicy>, subject: &Subject<'_>) -> bool {
    let Some(selection) = policy.spec.selection.ok() else { return true };
    if selection.targets.is_empty() {
        return selects(&selection.match_labels, subject.labels);
    }
    let own = policy.namespace() == subject.namespace;
    selection.targets.iter().any(|target| match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => own && subject.services.contains(&target.name.as_str()),
        ("gateway.networking.k8s.io", "Gateway") => {
            own && subject.gateway.is_some_and(|(name, _)| name == target.name)
        }
        ("gateway.networking.k8s.io", "GatewayClass") => {
            view.settings.is_root(policy.namespace())
                && subject.gateway.is_some_and(|(_, class)| class == target.name)
        }
        _ => false,
    })
}

/// Whether a policy has any effect: neither AUDIT nor a dry run.
fn is_enforced(policy: &Object<AuthorizationPolicy>) -> bool {
    let audits = matches!(policy.spec.action.ok(), Some(api::Action::Audit));
    !audits && policy.metadata.annotation("istio.io/dry-run") != Some("true")
}

/// Compiles one policy.
pub(crate) fn compile(view: &View<'_>, key: &ObjectKey, out: &mut Output) {
    match view.get(key.clone()) {
        Some(AnyObject::AuthorizationPolicy(policy)) => of_object(view, policy, out),
        Some(object @ AnyObject::Refused(refused)) => {
            let because = &refused.spec.because;
            let text = format!("{}; it denies all workloads that its namespace reaches", in_place(because));
            let diagnostic = Diagnostic::error(codes::POLICY_WITHHELD, because.at.clone(), text.clone());
            out.report(object, diagnostic);
            let withheld = model(refused, PolicyAction::Deny, Vec::new(), Some(text.as_str().into()));
            out.status(key.clone()).say(ACCEPTED, status::Condition::no("Withheld", text));
            out.resource(withheld);
        }
        _ => {}
    }
}

/// What is wrong, after the field in which it is.
fn in_place(because: &Diagnostic) -> String {
    match &*because.at.field {
        "" => because.message.clone(),
        field => format!("{field}: {}", because.message),
    }
}

fn model<S>(
    object: &Object<S>,
    action: PolicyAction,
    rules: Vec<PolicyRule>,
    withheld: Option<Arc<str>>,
) -> Resource {
    Resource::Policy(Arc::new(leno_model::AuthorizationPolicy {
        id: id(object.namespace(), object.name()),
        origin: origin(object, &object.source),
        action,
        rules,
        withheld,
    }))
}

fn of_object(view: &View<'_>, policy: &Object<AuthorizationPolicy>, out: &mut Output) {
    let key = key_of(policy);
    if !is_enforced(policy) {
        let text = "it only audits (AUDIT, or istio.io/dry-run): nothing is allowed or denied because of it";
        out.report_on(policy, Diagnostic::info(codes::POLICY_WITHOUT_EFFECT, policy.source.clone(), text));
        out.status(key).say(ACCEPTED, status::Condition::no("NoEffect", text));
        return;
    }
    report_unknown_targets(view, policy, out);
    let action = match policy.spec.action.ok() {
        Some(api::Action::Allow) => PolicyAction::Allow,
        _ => PolicyAction::Deny,
    };
    let writer = Writer { view, policy };
    let rules: Result<Vec<_>, Box<Diagnostic>> = match policy.spec.withheld() {
        Some(because) => {
            Err(Box::new(Diagnostic::error(codes::POLICY_WITHHELD, because.at.clone(), in_place(because))))
        }
        None => policy.spec.rules.iter().filter_map(|rule| rule.ok()).map(|rule| writer.rule(rule)).collect(),
    };
    match rules {
        Ok(rules) => {
            out.status(key).say(ACCEPTED, status::Condition::yes("Accepted"));
            out.resource(model(policy, action, rules, None));
        }
        Err(mut because) => {
            because.message =
                format!("{}; the policy is withheld and denies whatever it selects", because.message);
            let text: Arc<str> = because.message.as_str().into();
            out.status(key).say(ACCEPTED, status::Condition::no("Withheld", because.message.clone()));
            out.report_on(policy, (*because).refusing(leno_apis::Refused::Object));
            out.resource(model(policy, action, Vec::new(), Some(text)));
        }
    }
}

fn report_unknown_targets(view: &View<'_>, policy: &Object<AuthorizationPolicy>, out: &mut Output) {
    for target in policy.spec.selection.ok().into_iter().flat_map(|selection| &selection.targets) {
        let namespace = policy.namespace();
        let known = match target.kind.as_str() {
            "Service" => view.service(namespace, &target.name).is_some(),
            "Gateway" => view.gateway(namespace, &target.name).is_some(),
            "GatewayClass" => view.gateway_class("", &target.name).is_some(),
            _ => false,
        };
        if !known {
            let text =
                format!("there is no {} {namespace}/{}: nothing is selected by it", target.kind, target.name);
            out.report_on(policy, Diagnostic::warning(codes::UNRESOLVED_REFERENCE, target.at.clone(), text));
        }
    }
}

/// Turns the parts of one policy into the model's, or says why it cannot.
struct Writer<'p, 'w> {
    view: &'p View<'w>,
    policy: &'p Object<AuthorizationPolicy>,
}

fn withhold<T>(value: &Spanned<String>, message: String) -> Result<T, Box<Diagnostic>> {
    Err(Box::new(Diagnostic::error(codes::POLICY_WITHHELD, value.at.clone(), message)))
}

impl Writer<'_, '_> {
    fn rule(&self, rule: &api::AuthorizationRule) -> Result<PolicyRule, Box<Diagnostic>> {
        let field =
            |suffix: String| origin(self.policy, &rule.at.with_field(&format!("{}.{suffix}", rule.at.field)));
        let sources = rule.from.iter().flatten().enumerate();
        let operations = rule.to.iter().flatten().enumerate();
        let empty = |what: &str| {
            let text = format!("an empty `{what}` would match everything");
            Box::new(Diagnostic::error(codes::POLICY_WITHHELD, rule.at.clone(), text))
        };
        Ok(PolicyRule {
            from: sources
                .map(|(nth, source)| {
                    if *source == api::SourceMatch::default() {
                        return Err(empty("source"));
                    }
                    self.source(source, field(format!("from[{nth}].source")))
                })
                .collect::<Result<_, _>>()?,
            to: operations
                .map(|(nth, operation)| {
                    if *operation == api::OperationMatch::default() {
                        return Err(empty("operation"));
                    }
                    operation_of(operation, field(format!("to[{nth}].operation")))
                })
                .collect::<Result<_, _>>()?,
            when: rule.when.iter().map(|condition| self.condition(condition)).collect::<Result<_, _>>()?,
            origin: origin(self.policy, &rule.at),
        })
    }

    fn source(&self, source: &api::SourceMatch, origin: Origin) -> Result<Source, Box<Diagnostic>> {
        if let Some(value) = source.request_principals.iter().chain(&source.not_request_principals).next() {
            return withhold(value, "this release does not verify tokens of end users".to_owned());
        }
        let mut principals = self.principals(&source.principals);
        let not_principals = self.principals(&source.not_principals);
        if let Some(value) = source.not_trust_domains.first() {
            return withhold(
                value,
                "`notTrustDomains` is not supported by this release; use a `when`".to_owned(),
            );
        }
        if let Some(value) = source.trust_domains.first() {
            if !principals.is_empty() || source.trust_domains.iter().any(|value| value.contains('*')) {
                let text = "`trustDomains` with `principals` or wildcards is not supported by this release; use a `when`";
                return withhold(value, text.to_owned());
            }
            // A principal starts with its trust domain.
            let prefix = |value: &Spanned<String>| StringMatch::Prefix(format!("{}/", value.value).into());
            principals = source.trust_domains.iter().map(prefix).collect();
        }
        Ok(Source {
            principals,
            not_principals,
            namespaces: texts(&source.namespaces),
            not_namespaces: texts(&source.not_namespaces),
            service_accounts: self.accounts(&source.service_accounts),
            not_service_accounts: self.accounts(&source.not_service_accounts),
            ip_blocks: blocks(&source.ip_blocks)?,
            not_ip_blocks: blocks(&source.not_ip_blocks)?,
            remote_ip_blocks: blocks(&source.remote_ip_blocks)?,
            not_remote_ip_blocks: blocks(&source.not_remote_ip_blocks)?,
            origin,
        })
    }

    /// Principals; `cluster.local` stands for the mesh's own trust domain, as in Istio.
    fn principals(&self, values: &api::Values) -> Vec<StringMatch> {
        let own = self.view.settings.trust_domain.as_str();
        values
            .iter()
            .map(|value| {
                let text = value.strip_prefix("spiffe://").unwrap_or(value);
                match text.strip_prefix("cluster.local/") {
                    Some(rest) => string_match(&format!("{own}/{rest}")),
                    None => string_match(text),
                }
            })
            .collect()
    }

    /// Accounts as `namespace/name`; a name alone is of the policy's namespace.
    fn accounts(&self, values: &api::Values) -> Vec<StringMatch> {
        let full = |value: &Spanned<String>| match value.contains('/') || value.contains('*') {
            true => string_match(value),
            false => StringMatch::Exact(format!("{}/{}", self.policy.namespace(), value.value).into()),
        };
        values.iter().map(full).collect()
    }

    fn condition(&self, condition: &api::Condition) -> Result<Condition, Box<Diagnostic>> {
        let key = condition_key(&condition.key)?;
        let values = |values: &api::Values| -> Result<Vec<ConditionValue>, Box<Diagnostic>> {
            match key {
                ConditionKey::SourceIp | ConditionKey::RemoteIp | ConditionKey::DestinationIp => {
                    Ok(blocks(values)?.into_iter().map(ConditionValue::Ip).collect())
                }
                ConditionKey::DestinationPort => {
                    Ok(ports(values)?.into_iter().map(ConditionValue::Port).collect())
                }
                ConditionKey::SourcePrincipal => {
                    Ok(self.principals(values).into_iter().map(ConditionValue::Text).collect())
                }
                ConditionKey::SourceServiceAccount => {
                    Ok(self.accounts(values).into_iter().map(ConditionValue::Text).collect())
                }
                ConditionKey::RequestHeader(_)
                | ConditionKey::SourceNamespace
                | ConditionKey::SourceTrustDomain
                | ConditionKey::ConnectionSni => {
                    Ok(texts(values).into_iter().map(ConditionValue::Text).collect())
                }
            }
        };
        Ok(Condition {
            values: values(&condition.values)?,
            not_values: values(&condition.not_values)?,
            origin: origin(self.policy, &condition.key.at),
            key,
        })
    }
}

fn condition_key(key: &Spanned<String>) -> Result<ConditionKey, Box<Diagnostic>> {
    if let Some(header) = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
        return Ok(ConditionKey::RequestHeader(header.to_ascii_lowercase().into()));
    }
    Ok(match key.as_str() {
        "source.ip" => ConditionKey::SourceIp,
        "remote.ip" => ConditionKey::RemoteIp,
        "source.namespace" => ConditionKey::SourceNamespace,
        "source.serviceAccount" => ConditionKey::SourceServiceAccount,
        "source.trustDomain" => ConditionKey::SourceTrustDomain,
        "source.principal" => ConditionKey::SourcePrincipal,
        "destination.ip" => ConditionKey::DestinationIp,
        "destination.port" => ConditionKey::DestinationPort,
        "connection.sni" => ConditionKey::ConnectionSni,
        other => return withhold(key, format!("the condition `{other}` is not supported by this release")),
    })
}

fn operation_of(operation: &api::OperationMatch, origin: Origin) -> Result<Operation, Box<Diagnostic>> {
    let lower = |values: &api::Values| -> Vec<StringMatch> {
        values.iter().map(|value| string_match(&value.to_ascii_lowercase())).collect()
    };
    Ok(Operation {
        hosts: lower(&operation.hosts),
        not_hosts: lower(&operation.not_hosts),
        ports: ports(&operation.ports)?,
        not_ports: ports(&operation.not_ports)?,
        methods: texts(&operation.methods),
        not_methods: texts(&operation.not_methods),
        paths: paths(&operation.paths)?,
        not_paths: paths(&operation.not_paths)?,
        origin,
    })
}

fn texts(values: &api::Values) -> Vec<StringMatch> {
    values.iter().map(|value| string_match(value)).collect()
}

/// `*`, `prefix*`, `*suffix` or exact.
fn string_match(text: &str) -> StringMatch {
    if text == "*" {
        StringMatch::Present
    } else if let Some(suffix) = text.strip_prefix('*') {
        StringMatch::Suffix(suffix.into())
    } else if let Some(prefix) = text.strip_suffix('*') {
        StringMatch::Prefix(prefix.into())
    } else {
        StringMatch::Exact(text.into())
    }
}

fn paths(values: &api::Values) -> Result<Vec<PathMatch>, Box<Diagnostic>> {
    values.iter().map(path).collect()
}

fn path(value: &Spanned<String>) -> Result<PathMatch, Box<Diagnostic>> {
    if value.contains(['{', '}']) {
        let whole = |segment: &str| matches!(segment, "{*}" | "{**}") || !segment.contains(['{', '}', '*']);
        let mut segments = value.split('/');
        let after_rest = value.split_once("{**}").is_some_and(|(_, rest)| rest.contains("{**}"));
        if !value.starts_with('/') || !segments.all(whole) || after_rest {
            return withhold(
                value,
                format!("{:?} is not a path template (`{{*}}` and one `{{**}}`)", value.value),
            );
        }
        return Ok(PathMatch::Template(value.as_str().into()));
    }
    Ok(match string_match(value) {
        StringMatch::Exact(path) => PathMatch::Exact(path),
        StringMatch::Suffix(path) => PathMatch::Suffix(path),
        StringMatch::Prefix(path) => PathMatch::Prefix(path),
        StringMatch::Present | StringMatch::Regex(_) => PathMatch::Prefix("".into()),
    })
}

fn ports(values: &api::Values) -> Result<Vec<Port>, Box<Diagnostic>> {
    let port = |value: &Spanned<String>| match value.parse::<Port>() {
        Ok(port) if port > 0 => Ok(port),
        _ => withhold(value, format!("{:?} is not a port", value.value)),
    };
    values.iter().map(port).collect()
}

fn blocks(values: &api::Values) -> Result<Vec<IpBlock>, Box<Diagnostic>> {
    let block = |value: &Spanned<String>| {
        let address = || value.parse::<std::net::IpAddr>().ok().map(Into::into);
        match value.parse::<ipnet::IpNet>().ok().or_else(address) {
            Some(block) => Ok(IpBlock(block)),
            None => withhold(value, format!("{:?} is not an address or CIDR block", value.value)),
        }
    };
    values.iter().map(block).collect()
}
