//! AuthorizationPolicy: who may call what.
//!
//! Invariant: what cannot be read is a `Refused` value at the place where it would have counted, never an absent condition:
//! a policy any part of which is refused must deny what it selects.

use std::sync::Arc;

use crate::decode::{Cursor, Fields, choice, name, spanned, text};
use crate::diagnostic::{Diagnostic, Rule, Source, Spanned};

use super::selector::{Selection, selection};

/// An AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// What it applies to. Refused: it could be anything that its namespace reaches.
    pub selection: Rule<Selection>,
    /// What it does, with all other fields of the specification.
    pub action: Rule<Action>,
    /// Any of these; none never matches (so that an ALLOW policy without rules denies).
    pub rules: Vec<Rule<AuthorizationRule>>,
}

impl AuthorizationPolicy {
    /// Why the policy as a whole must deny what it selects; `None` when every part of it was understood.
    #[must_use]
    pub fn withheld(&self) -> Option<&Arc<Diagnostic>> {
        let parts = self.selection.refusal().or_else(|| self.action.refusal());
        parts.or_else(|| self.rules.iter().find_map(Rule::refusal))
    }
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets through what matches; the rest is denied.
    Allow,
    /// Denies what matches.
    Deny,
    /// Marks what matches in the access log.
    Audit,
}

/// One rule: all of its three parts hold.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationRule {
    /// Where it starts.
    pub at: Source,
    /// Any of these; absent means any source.
    pub from: Option<Vec<SourceMatch>>,
    /// Any of these; absent means any operation.
    pub to: Option<Vec<OperationMatch>>,
    /// All of these.
    pub when: Vec<Condition>,
}

/// A list of values of which one must match, with exact, prefix (`a*`), suffix (`*a`) and presence (`*`) forms.
pub type Values = Vec<Spanned<String>>;

/// Conditions on the client: all that are not empty hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub struct SourceMatch {
    pub principals: Values,
    pub not_principals: Values,
    pub request_principals: Values,
    pub not_request_principals: Values,
    pub namespaces: Values,
    pub not_namespaces: Values,
    pub service_accounts: Values,
    pub not_service_accounts: Values,
    pub trust_domains: Values,
    pub not_trust_domains: Values,
    pub ip_blocks: Values,
    pub not_ip_blocks: Values,
    pub remote_ip_blocks: Values,
    pub not_remote_ip_blocks: Values,
}

/// Conditions on the operation: all that are not empty hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub struct OperationMatch {
    pub hosts: Values,
    pub not_hosts: Values,
    pub ports: Values,
    pub not_ports: Values,
    pub methods: Values,
    pub not_methods: Values,
    pub paths: Values,
    pub not_paths: Values,
}

/// A condition on an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Attribute, such as `request.headers[x-user]`.
    pub key: Spanned<String>,
    /// One must match.
    pub values: Values,
    /// None may match.
    pub not_values: Values,
}

const ACTIONS: &[(&str, Action)] =
    &[("ALLOW", Action::Allow), ("DENY", Action::Deny), ("AUDIT", Action::Audit)];

pub(crate) fn authorization_policy(o: &mut Fields<'_>) -> Option<AuthorizationPolicy> {
    let nothing = || AuthorizationPolicy {
        selection: Rule::Ok(Selection::default()),
        action: Rule::Ok(Action::Allow),
        rules: Vec::new(),
    };
    let Some(spec) = o.take("spec") else { return Some(nothing()) };
    spec.object(|o| {
        let rules = o.rules("rules", rule);
        let selection = o.only_as_rule(&["selector", "targetRef", "targetRefs"], |o| Some(selection(o)));
        // `provider` belongs to CUSTOM alone and is left over, so that it refuses the action.
        let action = o.rest_as_rule(|o| o.or("action", Action::Allow, choice(ACTIONS)));
        Some(AuthorizationPolicy { selection, action, rules })
    })
}

fn rule(value: Cursor<'_>) -> Option<AuthorizationRule> {
    let at = value.source();
    value.object(|o| {
        let from = o.has("from");
        let sources = o.list("from", |value| value.object(|o| o.req("source", source)));
        let to = o.has("to");
        let operations = o.list("to", |value| value.object(|o| o.req("operation", operation)));
        Some(AuthorizationRule {
            at,
            from: from.then_some(sources),
            to: to.then_some(operations),
            when: o.list("when", condition),
        })
    })
}

fn values(o: &mut Fields<'_>, field: &str) -> Values {
    if o.has(field) {
        let list = o.list(field, spanned(name));
        if list.is_empty() {
            o.here().invalid(format!("`{field}` must not be empty: it could not match anything"));
        }
        return list;
    }
    Vec::new()
}

fn source(value: Cursor<'_>) -> Option<SourceMatch> {
    value.object(|o| {
        Some(SourceMatch {
            principals: values(o, "principals"),
            not_principals: values(o, "notPrincipals"),
            request_principals: values(o, "requestPrincipals"),
            not_request_principals: values(o, "notRequestPrincipals"),
            namespaces: values(o, "namespaces"),
            not_namespaces: values(o, "notNamespaces"),
            service_accounts: values(o, "serviceAccounts"),
            not_service_accounts: values(o, "notServiceAccounts"),
            trust_domains: values(o, "trustDomains"),
            not_trust_domains: values(o, "notTrustDomains"),
            ip_blocks: values(o, "ipBlocks"),
            not_ip_blocks: values(o, "notIpBlocks"),
            remote_ip_blocks: values(o, "remoteIpBlocks"),
            not_remote_ip_blocks: values(o, "notRemoteIpBlocks"),
        })
    })
}

fn operation(value: Cursor<'_>) -> Option<OperationMatch> {
    value.object(|o| {
        Some(OperationMatch {
            hosts: values(o, "hosts"),
            not_hosts: values(o, "notHosts"),
            ports: values(o, "ports"),
            not_ports: values(o, "notPorts"),
            methods: values(o, "methods"),
            not_methods: values(o, "notMethods"),
            paths: values(o, "paths"),
            not_paths: values(o, "notPaths"),
        })
    })
}

fn condition(value: Cursor<'_>) -> Option<Condition> {
    value.object(|o| {
        let found = Condition {
            values: o.list("values", spanned(text)),
            not_values: o.list("notValues", spanned(text)),
            key: o.req("key", spanned(name))?,
        };
        if found.values.is_empty() && found.not_values.is_empty() {
            o.here().invalid("one of `values` and `notValues` is required");
        }
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnyObject, parse};

    fn policy(spec: &str) -> AuthorizationPolicy {
        let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
        let parsed = parse("p.yaml", &format!("{head}{spec}"));
        let AnyObject::AuthorizationPolicy(object) = parsed.objects[0].as_ref() else {
            panic!("{:?}", parsed.diagnostics)
        };
        object.spec.clone()
    }

    #[test]
    fn an_empty_policy_allows_nothing_and_a_rule_without_parts_allows_all() {
        let nothing = policy("spec: {}\n");
        assert_eq!((nothing.action.ok(), nothing.rules.len()), (Some(&Action::Allow), 0));
        let all = policy("spec: {rules: [{}]}\n");
        let rule = all.rules[0].ok().unwrap();
        assert!(rule.from.is_none() && rule.to.is_none() && rule.when.is_empty());
    }

    #[test]
    fn a_misspelt_condition_withholds_the_policy_and_keeps_what_it_selects() {
        let spec = "spec:\n  selector: {matchLabels: {app: a}}\n  action: ALLOW\n  rules:\n  - to: [{operation: {method: [GET]}}]\n";
        let withheld = policy(spec);
        assert_eq!(withheld.withheld().unwrap().expected.as_deref(), Some("did you mean `methods`?"));
        assert_eq!(withheld.selection.ok().unwrap().match_labels["app"], "a");
    }

    #[test]
    fn a_custom_action_withholds_the_policy() {
        let withheld = policy("spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}\n");
        assert!(withheld.withheld().is_some());
        assert!(withheld.selection.ok().is_some());
    }

    #[test]
    fn a_selection_that_cannot_be_read_is_refused() {
        assert!(policy("spec: {selector: {matchLables: {a: b}}}\n").selection.refusal().is_some());
    }
}
