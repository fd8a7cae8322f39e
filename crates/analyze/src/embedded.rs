//! What Kubernetes' controllers would add to manifests: addresses of services, pods of templates.
//!
//! Invariant: a function of the objects alone, in their order: the same manifests give the same pods and addresses.
//! Must not know: real addresses. The lab gives its pods addresses of this machine; these are only told apart.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use leno_apis::{
    AnyObject, Kind, Metadata, Object, Source,
    k8s::{Pod, PodSpec, PodStatus, Service, Workload},
    metadata::OwnerReference,
};

/// The objects with addresses for services and, for each replica of a template and each pod without an address, a running
/// pod with a proxy.
#[must_use]
pub fn materialise(objects: &[Arc<AnyObject>]) -> Vec<Arc<AnyObject>> {
    // Of several objects of one name the last counts, as in a world.
    let mut last = BTreeMap::new();
    for (index, object) in objects.iter().enumerate() {
        last.insert(object.reference(), index);
    }
    let current = objects.iter().enumerate().filter(|(index, object)| last[&object.reference()] == *index);
    let mut found = Vec::new();
    let mut addresses = Addresses::default();
    for (_, object) in current {
        match &**object {
            AnyObject::Service(service) => found.push(with_address(object, service, &mut addresses)),
            AnyObject::Deployment(owner) | AnyObject::ReplicaSet(owner) => {
                found.push(object.clone());
                let names = (0..owner.spec.replicas).map(|ordinal| format!("{}-pod-{ordinal}", owner.name()));
                found.extend(names.map(|name| replica(owner, name, &mut addresses)));
            }
            AnyObject::StatefulSet(owner) => {
                found.push(object.clone());
                let names = (0..owner.spec.replicas).map(|ordinal| format!("{}-{ordinal}", owner.name()));
                found.extend(names.map(|name| replica(owner, name, &mut addresses)));
            }
            AnyObject::DaemonSet(owner) => {
                found.push(object.clone());
                found.push(replica(owner, format!("{}-pod", owner.name()), &mut addresses));
            }
            AnyObject::Pod(pod) if pod.spec.status.pod_ip.is_none() => {
                let spec = pod.spec.spec.clone();
                found.push(running(pod.metadata.clone(), spec, pod.source.clone(), &mut addresses));
            }
            _ => found.push(object.clone()),
        }
    }
    found
}

#[derive(Default)]
struct Addresses {
    services: u16,
    pods: u16,
}

impl Addresses {
    fn service(&mut self) -> Ipv4Addr {
        self.services = self.services.saturating_add(1);
        let [high, low] = self.services.to_be_bytes();
        Ipv4Addr::new(240, 240, high, low)
    }

    fn pod(&mut self) -> IpAddr {
        self.pods = self.pods.saturating_add(1);
        let [high, low] = self.pods.to_be_bytes();
        Ipv4Addr::new(10, 0, high, low).into()
    }
}

fn with_address(
    object: &Arc<AnyObject>,
    service: &Object<Service>,
    addresses: &mut Addresses,
) -> Arc<AnyObject> {
    let spec = &service.spec;
    if spec.headless || !spec.cluster_ips.is_empty() || spec.external_name.is_some() {
        return object.clone();
    }
    let mut service = service.clone();
    service.spec.cluster_ips = vec![addresses.service().to_string()];
    Arc::new(AnyObject::Service(service))
}

fn replica(owner: &Object<Workload>, name: String, addresses: &mut Addresses) -> Arc<AnyObject> {
    let info = owner.kind.info();
    let metadata = Metadata {
        name,
        namespace: Some(owner.namespace().to_owned()),
        labels: owner.spec.template.labels.clone(),
        annotations: owner.spec.template.annotations.clone(),
        owner_references: vec![OwnerReference {
            api_version: format!("{}/v1", info.group),
            kind: info.name.to_owned(),
            name: owner.name().to_owned(),
            controller: true,
        }],
        ..Metadata::default()
    };
    running(metadata, owner.spec.pod.clone(), owner.source.clone(), addresses)
}

/// A running pod; with a proxy unless it says otherwise.
fn running(
    mut metadata: Metadata,
    spec: PodSpec,
    source: Source,
    addresses: &mut Addresses,
) -> Arc<AnyObject> {
    let inject = metadata.label("sidecar.istio.io/inject").or(metadata.annotation("sidecar.istio.io/inject"));
    if inject != Some("false") {
        metadata.labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    }
    let address = addresses.pod();
    let status = PodStatus {
        pod_ip: Some(address),
        pod_ips: vec![address],
        phase: Some("Running".to_owned()),
        ready: true,
        containers_ready: true,
    };
    Arc::new(AnyObject::Pod(Object {
        kind: Kind::Pod,
        api_version: "v1".to_owned(),
        metadata,
        spec: Pod { spec, status },
        source,
    }))
}
