//! What the asking user and the control plane may do, by the API server's own reviews.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};
use serde_json::Value;

use super::{Finding, Look};
use crate::object::Named;

/// Whether the user may make the objects of the installation.
pub(super) async fn of_the_user(look: &Look<'_>) -> Vec<Finding> {
    let mut asked: Vec<ResourceAttributes> = Vec::new();
    for object in &look.objects {
        let named = Named::of(object);
        for verb in ["create", "patch"] {
            let attributes = named.attributes(verb);
            if !asked.contains(&attributes) {
                asked.push(attributes);
            }
        }
    }
    let reviews: Api<SelfSubjectAccessReview> = Api::all(look.client.clone());
    let mut lacking = Vec::new();
    for attributes in asked {
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes.clone()),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => lacking.push(words(&attributes)),
            Err(error) => return vec![Finding::unseen("user-rights", "your rights", &error)],
        }
    }
    vec![if lacking.is_empty() {
        Finding::ok("user-rights", "you may make every object of the installation")
    } else {
        Finding::fail(
            "user-rights",
            format!("you may not {}", lacking.join(", ")),
            "install as a user with these rights (cluster-admin has them)",
        )
    }]
}

/// Whether the control plane's account has what its roles give.
pub(super) async fn of_the_control_plane(look: &Look<'_>) -> Vec<Finding> {
    let account = format!("system:serviceaccount:{}:{}", look.names.namespace, look.names.control);
    let reviews: Api<SubjectAccessReview> = Api::all(look.client.clone());
    let mut lacking = Vec::new();
    for attributes in needed(look) {
        let spec = SubjectAccessReviewSpec {
            user: Some(account.clone()),
            groups: Some(vec!["system:serviceaccounts".to_owned(), "system:authenticated".to_owned()]),
            resource_attributes: Some(attributes.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => lacking.push(words(&attributes)),
            Err(error) => {
                return vec![Finding::unseen("control-rights", "the control plane's rights", &error)];
            }
        }
    }
    vec![if lacking.is_empty() {
        Finding::ok("control-rights", "the control plane has its rights")
    } else {
        Finding::fail(
            "control-rights",
            format!("the control plane may not {}", lacking.join(", ")),
            "run `leno install` again with the values of the installation",
        )
    }]
}

/// Each right of the installation's roles, once.
fn needed(look: &Look<'_>) -> Vec<ResourceAttributes> {
    let mut all = Vec::new();
    // The nodes' agent has an account of its own.
    let of_the_control_plane = |object: &&Value| {
        object["rules"].is_array() && object["metadata"]["name"] != look.names.agent.as_str()
    };
    for role in look.objects.iter().filter(of_the_control_plane) {
        let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
        for rule in role["rules"].as_array().into_iter().flatten() {
            let names = strings(&rule["resourceNames"]);
            for (resource, verb) in pairs(&strings(&rule["resources"]), &strings(&rule["verbs"])) {
                let (resource, subresource) = match resource.split_once('/') {
                    Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
                    None => (resource, None),
                };
                all.push(ResourceAttributes {
                    group: strings(&rule["apiGroups"]).first().map(|group| (*group).to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    verb: Some(verb.to_owned()),
                    namespace: namespace.clone(),
                    name: names.first().map(|name| (*name).to_owned()),
                    ..ResourceAttributes::default()
                });
            }
        }
    }
    all
}

fn pairs<'a>(resources: &[&'a str], verbs: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    resources.iter().flat_map(|resource| verbs.iter().map(move |verb| (*resource, *verb))).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `patch deployments.apps in leno-system`.
fn words(attributes: &ResourceAttributes) -> String {
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let mut resource = text(&attributes.resource);
    if let Some(subresource) = &attributes.subresource {
        resource = format!("{resource}/{subresource}");
    }
    if let Some(group) = attributes.group.as_ref().filter(|group| !group.is_empty()) {
        resource = format!("{resource}.{group}");
    }
    let within = attributes.namespace.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
    format!("{} {resource}{within}", text(&attributes.verb))
}
