//! Tests of whole worlds: manifests in, resources out.

use std::{net::Ipv4Addr, sync::Arc};

use leno_apis::{
    AnyObject, Diagnostic, Kind, Metadata, Object, Severity, Source,
    k8s::{self, PodStatus},
};
use leno_model::{
    BackendTarget, Destination, EndpointSet, HttpRoutes, HttpRule, Namespace, Resource, ResourceKey,
    RouteTable, ServiceId, Workload, WorkloadId,
};

use crate::{Compiled, MeshSettings, World, compile};

mod corpus;
mod gateways;
mod policies;
mod property;
mod routes;
mod services;

/// Reads manifests that are meant to be right.
fn objects(yaml: &str) -> Vec<Arc<AnyObject>> {
    let parsed = leno_apis::parse("test.yaml", yaml);
    let errors: Vec<_> =
        parsed.diagnostics.iter().filter(|found| found.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    with_pods(parsed.objects)
}

/// Reads manifests of which a part is meant to be refused.
fn partly_refused(yaml: &str) -> Vec<Arc<AnyObject>> {
    with_pods(leno_apis::parse("test.yaml", yaml).objects)
}

fn compiled(yaml: &str) -> Compiled {
    compile(&World::of(objects(yaml)), &MeshSettings::default(), &[])
}

/// Adds a ready pod in the mesh for each Deployment, as the lab does.
fn with_pods(mut objects: Vec<Arc<AnyObject>>) -> Vec<Arc<AnyObject>> {
    let deployments: Vec<_> = objects
        .iter()
        .filter_map(|object| match object.as_ref() {
            AnyObject::Deployment(deployment) => Some(deployment.clone()),
            _ => None,
        })
        .collect();
    for (nth, deployment) in deployments.iter().enumerate() {
        let nth = u8::try_from(nth + 1).unwrap();
        objects.push(Arc::new(AnyObject::Pod(pod(deployment, nth))));
    }
    objects
}

fn pod(deployment: &Object<k8s::Workload>, nth: u8) -> Object<k8s::Pod> {
    let mut labels = deployment.spec.template.labels.clone();
    labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    Object {
        kind: Kind::Pod,
        api_version: "v1".to_owned(),
        metadata: Metadata {
            name: format!("{}-0", deployment.name()),
            namespace: Some(deployment.namespace().to_owned()),
            labels,
            ..Metadata::default()
        },
        spec: k8s::Pod {
            spec: deployment.spec.pod.clone(),
            status: PodStatus {
                pod_ip: Some(Ipv4Addr::new(10, 0, 0, nth).into()),
                ready: true,
                phase: Some("Running".to_owned()),
                ..PodStatus::default()
            },
        },
        source: Source::whole("test.yaml"),
    }
}

/// A Service on port 80 and a Deployment of the same name.
fn application(namespace: &str, name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: 10.96.0.1
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, version: v1}}}}
    spec:
      serviceAccountName: {name}
      containers: [{{name: app, image: x, ports: [{{containerPort: 8080}}]}}]
"
    )
}

fn service(namespace: &str, name: &str) -> ServiceId {
    ServiceId::kubernetes(namespace, name)
}

fn routes(compiled: &Compiled, service: &ServiceId, variant: Option<&str>) -> Option<Arc<RouteTable>> {
    let variant = variant.map(Namespace::from);
    match compiled.resources.get(&ResourceKey::routes(service, variant.as_ref()))? {
        Resource::Routes(table) => Some(table.clone()),
        _ => None,
    }
}

fn http(compiled: &Compiled, service: &ServiceId, variant: Option<&str>, port: u16) -> HttpRoutes {
    routes(compiled, service, variant).unwrap().ports[&port].http.clone().unwrap()
}

fn destination(compiled: &Compiled, service: &ServiceId, variant: Option<&str>) -> Arc<Destination> {
    let variant = variant.map(Namespace::from);
    match &compiled.resources[&ResourceKey::destination(service, variant.as_ref())] {
        Resource::Destination(found) => found.clone(),
        _ => unreachable!(),
    }
}

fn endpoints(compiled: &Compiled, service: &ServiceId) -> Arc<EndpointSet> {
    match &compiled.resources[&ResourceKey::endpoints(service)] {
        Resource::Endpoints(found) => found.clone(),
        _ => unreachable!(),
    }
}

fn workload(compiled: &Compiled, namespace: &str, name: &str) -> Arc<Workload> {
    match &compiled.resources[&ResourceKey::workload(&WorkloadId::new(namespace, name))] {
        Resource::Workload(found) => found.clone(),
        _ => unreachable!(),
    }
}

/// Where a rule forwards to, as `host:port[/subset] weight`.
fn forwards(rule: &HttpRule) -> Vec<String> {
    let leno_model::Action::Forward(backends) = &rule.action else {
        return vec![format!("{:?}", rule.action)];
    };
    backends
        .iter()
        .map(|backend| match &backend.target {
            BackendTarget::Service { service, port, subset } => {
                let subset = subset.as_deref().map(|subset| format!("/{subset}")).unwrap_or_default();
                format!("{}:{port}{subset} {}", service.short_name(), backend.weight.0)
            }
            BackendTarget::Unresolved { status, .. } => format!("{status} {}", backend.weight.0),
        })
        .collect()
}

/// The codes of all findings, in order.
fn codes(compiled: &Compiled) -> Vec<&'static str> {
    compiled.diagnostics.iter().map(|found| found.code).collect()
}

fn errors(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().filter(|found| found.severity == Severity::Error).map(ToString::to_string).collect()
}
