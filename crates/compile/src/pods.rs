//! Facts about a pod: who it is, where it runs, what owns it.
//!
//! Invariant: a function of the pod (and its node) alone, so that a workload and its endpoints agree.

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::{
    Object,
    k8s::{self, Pod, TargetPort},
};
use leno_model::{EndpointState, Locality, NetworkName, Port, SpiffeId, WorkloadId};

use crate::view::View;

/// Istio's label of a network: of a pod in another one than its cluster, of the Service of a network's gateway.
pub const NETWORK_LABEL: &str = "topology.istio.io/network";

/// The pod's name as a workload.
pub(crate) fn id(pod: &Object<Pod>) -> WorkloadId {
    WorkloadId::new(pod.namespace(), pod.name())
}

/// Its identity; `None` when its namespace or account cannot be part of one.
pub(crate) fn identity(view: &View<'_>, pod: &Object<Pod>) -> Option<SpiffeId> {
    let account = &pod.spec.spec.service_account;
    SpiffeId::workload(&view.settings.trust_domain, pod.namespace(), account).ok()
}

/// Whether a proxy of the mesh is beside it: our injector's, or one that its label speaks of where nobody injects (the lab).
/// Istio's injector writes both the label and the status, and its proxy is no peer: it does not take what we send.
pub(crate) fn in_mesh(pod: &Object<Pod>) -> bool {
    match pod.metadata.annotation("sidecar.istio.io/status") {
        Some(_) => pod.metadata.annotation("leno.dev/rev").is_some(),
        None => pod.metadata.label("security.istio.io/tlsMode") == Some("istio"),
    }
}

/// Its labels.
pub(crate) fn labels(pod: &Object<Pod>) -> BTreeMap<Arc<str>, Arc<str>> {
    shared(&pod.metadata.labels)
}

/// A map of texts as the model has it.
pub(crate) fn shared(map: &BTreeMap<String, String>) -> BTreeMap<Arc<str>, Arc<str>> {
    map.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// Its network.
pub(crate) fn network(view: &View<'_>, pod: &Object<Pod>) -> NetworkName {
    match pod.metadata.label(NETWORK_LABEL) {
        Some(network) => network.into(),
        None => view.settings.network.clone(),
    }
}

/// Its uid; its name where there is no API server to give one.
pub(crate) fn uid(pod: &Object<Pod>) -> Arc<str> {
    match &pod.metadata.uid {
        Some(uid) => uid.as_str().into(),
        None => id(pod).to_string().into(),
    }
}

/// Whether it still exists for the mesh: not finished, and with an address.
pub(crate) fn is_live(pod: &Object<Pod>) -> bool {
    let finished = matches!(pod.spec.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    !finished && pod.spec.status.pod_ip.is_some()
}

/// Whether it takes new work, as the pod itself says.
pub(crate) fn state(pod: &Object<Pod>) -> EndpointState {
    if pod.metadata.deletion_timestamp.is_some() {
        EndpointState::Draining
    } else if pod.spec.status.ready {
        EndpointState::Ready
    } else {
        EndpointState::NotReady
    }
}

/// Whether it is not ready for want of its machine's word alone: Kubernetes takes `Ready` from the pods of a machine that it has
/// not heard of, and leaves what the machine said last of their containers.
pub(crate) fn is_cut_off(pod: &Object<Pod>) -> bool {
    let status = &pod.spec.status;
    state(pod) == EndpointState::NotReady
        && status.containers_ready
        && pod.spec.spec.readiness_gates.is_empty()
}

/// Where it runs: its own label, its node's labels, else where the cluster is.
pub(crate) fn locality(view: &View<'_>, pod: &Object<Pod>) -> Locality {
    let own = ["topology.istio.io/locality", "istio-locality"];
    if let Some(text) = own.into_iter().find_map(|label| pod.metadata.label(label)) {
        // A label cannot hold `/`, so Istio also takes `.` there.
        return parse_locality(&if text.contains('/') { text.to_owned() } else { text.replace('.', "/") });
    }
    let of_node = pod.spec.spec.node_name.as_deref().and_then(|node| view.node("", node)).map(|node| {
        let label = |key: &str| Arc::from(node.metadata.label(key).unwrap_or(""));
        Locality {
            region: label("topology.kubernetes.io/region"),
            zone: label("topology.kubernetes.io/zone"),
            subzone: label("topology.istio.io/subzone"),
        }
    });
    of_node.filter(|found| *found != Locality::default()).unwrap_or_else(|| view.settings.locality.clone())
}

/// Reads `region/zone/subzone`; `*` and missing parts are empty.
pub(crate) fn parse_locality(text: &str) -> Locality {
    let mut parts = text.split('/').map(|part| Arc::from(if part == "*" { "" } else { part }));
    let mut next = || parts.next().unwrap_or_else(|| "".into());
    Locality { region: next(), zone: next(), subzone: next() }
}

/// The name of what owns it: its Deployment, StatefulSet, CronJob or the like, or itself.
pub(crate) fn owner(pod: &Object<Pod>) -> Arc<str> {
    let Some(owner) = pod.metadata.owner_references.iter().find(|owner| owner.controller) else {
        return pod.name().into();
    };
    let stem = match owner.kind.as_str() {
        // A Deployment's ReplicaSet is DEPLOYMENT-HASH, and the hash is a label of its pods.
        "ReplicaSet" => pod
            .metadata
            .label("pod-template-hash")
            .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-')),
        // A CronJob's Job is CRONJOB-MINUTES.
        "Job" => owner.name.rsplit_once('-').and_then(|(stem, minutes)| {
            (minutes.len() >= 8 && minutes.bytes().all(|b| b.is_ascii_digit())).then_some(stem)
        }),
        _ => None,
    };
    stem.unwrap_or(&owner.name).into()
}

/// The port of the pod behind a service's port.
pub(crate) fn target(pod: &Object<Pod>, port: Port, target: Option<&TargetPort>) -> Option<Port> {
    match target {
        None => Some(port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => {
            container_ports(pod).find(|port| port.name == *name).map(|port| *port.port)
        }
    }
}

/// Declared TCP ports of all containers.
pub(crate) fn container_ports(pod: &Object<Pod>) -> impl Iterator<Item = &k8s::ContainerPort> {
    let spec = &pod.spec.spec;
    let containers = spec.containers.iter().chain(&spec.init_containers);
    containers.flat_map(|container| &container.ports).filter(|port| port.protocol == k8s::Protocol::Tcp)
}

/// Canonical name and revision (CONTRACTS section 2).
pub(crate) fn canonical(pod: &Object<Pod>) -> (Arc<str>, Arc<str>) {
    let first = |labels: [&str; 3]| labels.into_iter().find_map(|label| pod.metadata.label(label));
    let name = first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    (name.map_or_else(|| owner(pod), Into::into), revision.unwrap_or("latest").into())
}
