//! An object of the list as the API server knows it.

use std::fmt;

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

/// Kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    resource: ApiResource,
}

impl Named {
    /// That of an object.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api_version = text(&object["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = text(&object["kind"]);
        Self {
            resource: ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind)),
            kind,
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// Where it is.
    pub(crate) fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// Its kind, in all namespaces.
    pub(crate) fn everywhere(&self, client: &Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.resource)
    }

    /// What a review of access is asked about it.
    pub(crate) fn attributes(&self, verb: &str) -> ResourceAttributes {
        ResourceAttributes {
            group: Some(self.resource.group.clone()),
            resource: Some(self.resource.plural.clone()),
            namespace: self.namespace.clone(),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        }
    }

    /// `deployments.apps`, as roles and the API server name it.
    pub(crate) fn resource(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
