//! Pods from templates: names, replicas, ports, environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use leno_apis::{
    AnyObject, Kind, Metadata, Object, Source,
    k8s::{EnvValue, Pod, PodSpec, PodStatus, Protocol, ServicePort, TargetPort, Workload},
    metadata::OwnerReference,
};
use leno_model::WorkloadId;

use super::Addresses;

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
    source: Source,
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

/// The replicas that these objects ask for. Services get their addresses in `services_with_addresses`.
pub fn plan(objects: &[Arc<AnyObject>], addresses: &mut Addresses) -> (Vec<PodPlan>, Vec<Arc<AnyObject>>) {
    let mut rest = Vec::new();
    let mut services = Vec::new();
    for object in objects {
        match &**object {
            AnyObject::Service(service) => {
                let object = with_address(object, service, addresses);
                services.push(object.clone());
                rest.push(object);
            }
            _ => rest.push(object.clone()),
        }
    }
    let mut plans = Vec::new();
    for object in objects {
        match &**object {
            AnyObject::Deployment(owner) | AnyObject::ReplicaSet(owner) => {
                let hash = template_hash(&owner.spec);
                for ordinal in 0..owner.spec.replicas {
                    plans.extend(replica(owner, format!("{}-{hash}-{ordinal}", owner.name()), &services, addresses));
                }
            }
            AnyObject::StatefulSet(owner) => {
                for ordinal in 0..owner.spec.replicas {
                    plans.extend(replica(owner, format!("{}-{ordinal}", owner.name()), &services, addresses));
                }
            }
            AnyObject::DaemonSet(owner) => {
                plans.extend(replica(owner, format!("{}-{}", owner.name(), template_hash(&owner.spec)), &services, addresses));
            }
            AnyObject::Pod(pod) if pod.spec.status.pod_ip.is_none() => plans.extend(bare(pod, &services, addresses)),
            _ => {}
        }
    }
    rest.retain(|object| !matches!(&**object, AnyObject::Pod(pod) if pod.spec.status.pod_ip.is_none()));
    (plans, rest)
}

/// The Pod object of a replica, as the control plane sees it.
pub fn pod_object(plan: &PodPlan, state: PodState) -> Arc<AnyObject> {
    let PodPlan { id, owner, service_account, labels, annotations, address, spec, source, .. } = plan;
    let mut labels = labels.clone();
    labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    let (kind, name) = owner;
    let owner_references = if *kind == Kind::Pod {
        Vec::new()
    } else {
        let info = kind.info();
        let group = if info.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", info.group) };
        vec![OwnerReference { api_version: group, kind: info.name.to_owned(), name: name.clone(), controller: true }]
    };
    Arc::new(AnyObject::Pod(Object {
        kind: Kind::Pod,
        api_version: "v1".to_owned(),
        metadata: Metadata {
            name: id.name.to_string(),
            namespace: Some(id.namespace.to_string()),
            labels,
            annotations: annotations.clone(),
            uid: Some(format!("{}.{}", id.name, id.namespace)),
            deletion_timestamp: state.terminating.then(|| "1970-01-01T00:00:00Z".to_owned()),
            owner_references,
            ..Metadata::default()
        },
        spec: Pod {
            spec: PodSpec { service_account: service_account.clone(), ..spec.clone() },
            status: PodStatus {
                pod_ip: Some(*address),
                pod_ips: vec![*address],
                phase: Some("Running".to_owned()),
                ready: state.ready && !state.terminating,
            },
        },
        source: source.clone(),
    }))
}

fn replica(
    owner: &Object<Workload>,
    name: String,
    services: &[Arc<AnyObject>],
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
        source: owner.source.clone(),
        id,
        labels,
        address,
        app_address,
    })
}

fn bare(pod: &Object<Pod>, services: &[Arc<AnyObject>], addresses: &mut Addresses) -> Option<PodPlan> {
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
        source: pod.source.clone(),
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
    services: &[Arc<AnyObject>],
) -> Vec<PlannedPort> {
    let mut ports: BTreeMap<u16, PlannedPort> = BTreeMap::new();
    for declared in spec.containers.iter().flat_map(|container| &container.ports) {
        if declared.protocol == Protocol::Tcp {
            let port = declared.port.value;
            ports.insert(port, PlannedPort { port, name: declared.name.clone(), app_protocol: None });
        }
    }
    for object in services {
        let AnyObject::Service(service) = &**object else { continue };
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

fn with_address(
    object: &Arc<AnyObject>,
    service: &Object<leno_apis::k8s::Service>,
    addresses: &mut Addresses,
) -> Arc<AnyObject> {
    let spec = &service.spec;
    if spec.headless || !spec.cluster_ips.is_empty() || spec.external_name.is_some() {
        return object.clone();
    }
    let mut service = service.clone();
    service.spec.cluster_ips = vec![addresses.service(service.namespace(), service.name()).to_string()];
    Arc::new(AnyObject::Service(service))
}
