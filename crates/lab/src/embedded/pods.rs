//! Pods from templates: names, replicas, ports, environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use leno_apis::{
    AnyObject, Kind, Object,
    k8s::{
        self, Container, ContainerPort, EnvValue, Pod, PodSpec, Protocol, ServicePort, TargetPort, Workload,
    },
};
use leno_model::WorkloadId;
use serde_json::{Value, json};

use super::{Addresses, PlannedService};

/// A replica to run.
#[derive(Clone, Debug, PartialEq)]
pub struct PodPlan {
    /// Its name.
    pub id: WorkloadId,
    /// Kind and name of the object that its template is in.
    pub owner: (Kind, String),
    /// Its service account.
    pub service_account: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where its proxy is.
    pub address: IpAddr,
    /// Where its application is.
    pub app_address: IpAddr,
    /// What the application serves.
    pub ports: Vec<PlannedPort>,
    /// Environment, literal values only.
    pub env: Vec<(String, String)>,
    /// The template's own pod specification.
    spec: PodSpec,
}

/// A port that an application serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedPort {
    /// Its number.
    pub port: u16,
    /// Name of the service's or container's port.
    pub name: String,
    /// `appProtocol` of the service's port.
    pub app_protocol: Option<String>,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PodState {
    /// Its proxy and its application answer.
    pub ready: bool,
    /// It was told to go.
    pub terminating: bool,
}

/// What some objects ask for.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// The replicas.
    pub pods: Vec<PodPlan>,
    /// The services.
    pub services: Vec<PlannedService>,
}

/// The replicas and services that these objects ask for.
pub fn plan<'a>(
    objects: impl Iterator<Item = &'a Arc<AnyObject>> + Clone,
    addresses: &mut Addresses,
) -> Planned {
    let mut services = Vec::new();
    for object in objects.clone() {
        if let AnyObject::Service(service) = &**object {
            services.push(service);
        }
    }
    let mut pods = Vec::new();
    for object in objects {
        match &**object {
            AnyObject::Deployment(owner) | AnyObject::ReplicaSet(owner) => {
                let hash = template_hash(&owner.spec);
                for ordinal in 0..owner.spec.replicas {
                    pods.extend(replica(
                        owner,
                        format!("{}-{hash}-{ordinal}", owner.name()),
                        &services,
                        addresses,
                    ));
                }
            }
            AnyObject::StatefulSet(owner) => {
                for ordinal in 0..owner.spec.replicas {
                    pods.extend(replica(owner, format!("{}-{ordinal}", owner.name()), &services, addresses));
                }
            }
            AnyObject::DaemonSet(owner) => {
                pods.extend(replica(
                    owner,
                    format!("{}-{}", owner.name(), template_hash(&owner.spec)),
                    &services,
                    addresses,
                ));
            }
            AnyObject::Pod(pod) if pod.spec.status.pod_ip.is_none() => {
                pods.extend(bare(pod, &services, addresses))
            }
            _ => {}
        }
    }
    Planned {
        pods,
        services: services.into_iter().map(|service| PlannedService::of(service, addresses)).collect(),
    }
}

impl PodPlan {
    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// The `app` label, or what stands for it.
    pub fn app(&self) -> &str {
        self.label("app").or_else(|| self.label("app.kubernetes.io/name")).unwrap_or(&self.owner.1)
    }

    /// The `version` label, or what stands for it.
    pub fn version(&self) -> &str {
        self.label("version").or_else(|| self.label("app.kubernetes.io/version")).unwrap_or("")
    }

    /// Whether a proxy is beside it: unless its `sidecar.istio.io/inject` says `false`.
    pub fn has_proxy(&self) -> bool {
        let key = "sidecar.istio.io/inject";
        self.label(key).or_else(|| self.annotations.get(key).map(String::as_str)) != Some("false")
    }

    /// Whether what runs is the same; labels and annotations may change under a running replica.
    pub fn runs_as(&self, other: &Self) -> bool {
        self.service_account == other.service_account
            && self.ports == other.ports
            && self.env == other.env
            && self.has_proxy() == other.has_proxy()
            && (self.app(), self.version()) == (other.app(), other.version())
    }

    /// The Pod, as an API server would give it to the control plane.
    pub fn to_json(&self, state: PodState) -> Value {
        let Self { id, owner: (kind, owner), service_account, annotations, address, spec, .. } = self;
        let mut labels = self.labels.clone();
        if self.has_proxy() {
            labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
        }
        let owners = if *kind == Kind::Pod {
            json!([])
        } else {
            let info = kind.info();
            json!([{"apiVersion": format!("{}/v1", info.group), "kind": info.name, "name": owner, "controller": true}])
        };
        let ready = state.ready && !state.terminating;
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": id.name,
                "namespace": id.namespace,
                "uid": format!("{}.{}", id.name, id.namespace),
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": owners,
            },
            "spec": {
                "serviceAccountName": service_account,
                "containers": spec.containers.iter().map(container).collect::<Vec<_>>(),
                "initContainers": spec.init_containers.iter().map(container).collect::<Vec<_>>(),
            },
            "status": {
                "podIP": address,
                "podIPs": [{"ip": address}],
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        });
        if state.terminating {
            pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        }
        pod
    }
}

fn container(container: &Container) -> Value {
    let port = |port: &ContainerPort| {
        let protocol = match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        json!({"name": port.name, "containerPort": port.port.value, "protocol": protocol})
    };
    json!({"name": container.name, "ports": container.ports.iter().map(port).collect::<Vec<_>>()})
}

fn replica(
    owner: &Object<Workload>,
    name: String,
    services: &[&Object<k8s::Service>],
    addresses: &mut Addresses,
) -> Option<PodPlan> {
    let id = WorkloadId::new(owner.namespace(), &name);
    let (address, app_address) = addresses.workload(&id)?;
    let spec = &owner.spec.pod;
    let labels = owner.spec.template.labels.clone();
    Some(PodPlan {
        owner: (owner.kind, owner.name().to_owned()),
        service_account: spec.service_account.clone(),
        annotations: owner.spec.template.annotations.clone(),
        ports: ports(owner.namespace(), &labels, spec, services),
        env: env(spec),
        spec: spec.clone(),
        id,
        labels,
        address,
        app_address,
    })
}

fn bare(pod: &Object<Pod>, services: &[&Object<k8s::Service>], addresses: &mut Addresses) -> Option<PodPlan> {
    let id = WorkloadId::new(pod.namespace(), pod.name());
    let (address, app_address) = addresses.workload(&id)?;
    let spec = &pod.spec.spec;
    let labels = pod.metadata.labels.clone();
    Some(PodPlan {
        owner: (Kind::Pod, pod.name().to_owned()),
        service_account: spec.service_account.clone(),
        annotations: pod.metadata.annotations.clone(),
        ports: ports(pod.namespace(), &labels, spec, services),
        env: env(spec),
        spec: spec.clone(),
        id,
        labels,
        address,
        app_address,
    })
}

/// Declared container ports and the target ports of services that select the pod.
fn ports(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    spec: &PodSpec,
    services: &[&Object<k8s::Service>],
) -> Vec<PlannedPort> {
    let mut ports: BTreeMap<u16, PlannedPort> = BTreeMap::new();
    for declared in spec.containers.iter().flat_map(|container| &container.ports) {
        if declared.protocol == Protocol::Tcp {
            let port = declared.port.value;
            ports.insert(port, PlannedPort { port, name: declared.name.clone(), app_protocol: None });
        }
    }
    for service in services {
        let selector = &service.spec.selector;
        let selected = service.namespace() == namespace
            && !selector.is_empty()
            && selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        if !selected {
            continue;
        }
        for served in service.spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            if let Some(port) = target(served, spec) {
                let app_protocol = served.app_protocol.clone();
                // The service's name for a port says more of its protocol than the container's.
                ports.insert(port, PlannedPort { port, name: served.name.clone(), app_protocol });
            }
        }
    }
    ports.into_values().collect()
}

fn target(served: &ServicePort, spec: &PodSpec) -> Option<u16> {
    match &served.target_port {
        None => Some(served.port.value),
        Some(TargetPort::Number(port)) => Some(*port),
        Some(TargetPort::Name(name)) => {
            let mut declared = spec.containers.iter().flat_map(|container| &container.ports);
            declared.find(|port| port.name == *name).map(|port| port.port.value)
        }
    }
}

fn env(spec: &PodSpec) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let variables = spec.containers.iter().flat_map(|container| &container.env);
    variables
        .filter(|variable| seen.insert(&variable.name))
        .filter_map(|variable| match &variable.value {
            EnvValue::Literal(value) => Some((variable.name.clone(), value.value.clone())),
            EnvValue::FieldRef(_) | EnvValue::Elsewhere => None,
        })
        .collect()
}

/// Changes when the template does, so that a changed Deployment gets new pods, as in Kubernetes.
fn template_hash(workload: &Workload) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    let Workload { template, pod, .. } = workload;
    format!("{:?}{:?}", template.labels, template.annotations).hash(&mut hasher);
    for container in &pod.containers {
        let ports: Vec<_> = container.ports.iter().map(|port| (&port.name, port.port.value)).collect();
        format!("{}{:?}{:?}{ports:?}", container.name, container.image, container.args).hash(&mut hasher);
    }
    format!("{}{:?}", pod.service_account, env(pod)).hash(&mut hasher);
    format!("{:06x}", hasher.finish() & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Block;

    const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: grpc, port: 80, targetPort: main}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: cart}}
    spec:
      serviceAccountName: cart
      containers: [{name: app, env: [{name: DB_ADDR, value: 'db:1'}], ports: [{name: main, containerPort: 7070}]}]
";

    fn planned(text: &str) -> Planned {
        let parsed = leno_apis::parse("test", text);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        plan(parsed.objects.iter(), &mut Addresses::new(Arc::new(Block::take().unwrap()), 0))
    }

    #[test]
    fn a_template_makes_replicas_that_serve_what_services_target() {
        let planned = planned(SHOP);
        assert_eq!(planned.pods.len(), 2);
        let port = PlannedPort { port: 7070, name: "grpc".to_owned(), app_protocol: None };
        assert_eq!(planned.pods[0].ports, [port]);
        assert_eq!(planned.pods[0].env, [("DB_ADDR".to_owned(), "db:1".to_owned())]);
        assert!(planned.services[0].allotted);
    }

    #[test]
    fn a_changed_template_makes_other_pods() {
        let (before, after) = (planned(SHOP), planned(&SHOP.replace("db:1", "db:2")));
        assert_ne!(before.pods[0].id, after.pods[0].id);
    }

    #[test]
    fn the_pod_that_the_control_plane_reads_says_what_was_planned() {
        let planned = planned(SHOP);
        let json = planned.pods[0].to_json(PodState { ready: true, terminating: false });
        let parsed = leno_apis::parse_json("overlay", &json);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let [AnyObject::Pod(pod)] =
            &*parsed.objects.iter().map(|object| (**object).clone()).collect::<Vec<_>>()
        else {
            panic!("one pod");
        };
        assert!(pod.spec.status.ready);
        assert_eq!(pod.spec.status.pod_ip, Some(planned.pods[0].address));
        assert_eq!(pod.spec.spec.service_account, "cart");
        let json = planned.pods[0].to_json(PodState { ready: true, terminating: true });
        let parsed = leno_apis::parse_json("overlay", &json);
        assert!(parsed.objects[0].metadata().deletion_timestamp.is_some());
    }
}
