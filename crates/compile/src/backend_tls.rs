//! BackendTLSPolicies: ordinary TLS towards a service, asked for by the service's own namespace.
//!
//! Invariants: of several for one service (or port) the oldest wins; one that cannot be honoured in full still asks for TLS,
//! so that connections fail rather than go unverified; a DestinationRule that says something about TLS wins.

use std::sync::Arc;

use leno_apis::{
    AnyObject, Diagnostic, Kind, Object,
    gateway::{BackendTlsPolicy, backend_tls_policy::SubjectAltName},
};
use leno_model::{ClientTls, Port};

use crate::{
    codes,
    output::{Output, age_order, key_of},
    services::{Declared, Registered},
    status::{ACCEPTED, Condition},
    view::View,
};

/// What is asked for: of all ports (`None`) or of one, the oldest policy first.
pub(crate) fn of_service(view: &View<'_>, service: &Registered<'_>) -> Vec<(Option<Port>, ClientTls)> {
    let Declared::Service(object) = &service.declared else { return Vec::new() };
    let mut policies: Vec<&Object<BackendTlsPolicy>> = view
        .in_namespace(Kind::BackendTlsPolicy, object.namespace())
        .into_iter()
        .filter_map(|object| match object {
            AnyObject::BackendTlsPolicy(policy) => Some(policy),
            _ => None,
        })
        .collect();
    policies.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
    let mut asked = Vec::new();
    for policy in policies {
        let targets = policy.spec.target_refs.iter().filter(|target| {
            matches!(target.group.as_str(), "" | "core")
                && target.kind == "Service"
                && target.name == object.name()
        });
        for target in targets {
            let port = match &target.section_name {
                Some(name) => match service.ports.iter().find(|port| *port.name == **name) {
                    Some(port) => Some(port.port),
                    None => continue,
                },
                None => None,
            };
            if asked.iter().all(|(known, _)| *known != port) {
                asked.push((port, client_tls(policy)));
            }
        }
    }
    asked
}

fn client_tls(policy: &Object<BackendTlsPolicy>) -> ClientTls {
    match policy.spec.validation.ok() {
        Some(validation) => ClientTls::Simple {
            sni: validation.hostname.as_str().into(),
            subject_alt_names: validation
                .subject_alt_names
                .iter()
                .map(|name| match name {
                    SubjectAltName::Hostname(name) | SubjectAltName::Uri(name) => Arc::from(name.as_str()),
                })
                .collect(),
            insecure: false,
        },
        // `.invalid` is a name that no certificate has (RFC 6761).
        None => ClientTls::Simple {
            sni: "refused.invalid".into(),
            subject_alt_names: Vec::new(),
            insecure: false,
        },
    }
}

/// What can be said about a policy by itself.
pub(crate) fn check(view: &View<'_>, policy: &Object<BackendTlsPolicy>, out: &mut Output) {
    let mut accepted = Condition::yes("Accepted");
    match policy.spec.validation.as_result() {
        Ok(validation) => {
            if let Some(authority) = validation.ca_certificate_refs.first() {
                let text =
                    "own authorities are not supported by this release: servers are verified by the system's";
                out.report_on(policy, Diagnostic::error(codes::NOT_HONOURED, authority.at.clone(), text));
                accepted = Condition::no("NoValidCACertificate", text);
            }
        }
        Err(because) => {
            let text = format!("{}: connections to its targets fail", because.message);
            out.report_on(policy, Diagnostic::error(codes::RULE_REFUSED, because.at.clone(), text.clone()));
            accepted = Condition::no("Invalid", text);
        }
    }
    for target in &policy.spec.target_refs {
        if target.kind != "Service" || view.service(policy.namespace(), &target.name).is_none() {
            let text = format!("there is no {} {}/{}", target.kind, policy.namespace(), target.name);
            out.report_on(
                policy,
                Diagnostic::warning(codes::UNRESOLVED_REFERENCE, target.at.clone(), text.clone()),
            );
            accepted = Condition::no("TargetNotFound", text);
        }
    }
    out.status(key_of(policy)).say(ACCEPTED, accepted);
}
