//! Gateways of both APIs: which workload serves them, their listeners, routes and certificates.
//!
//! Invariants: a listener whose certificate does not resolve is there
//! and refuses handshakes; a gateway's identity follows from its name, so that whoever starts it knows which to ask for.
//! Must not know: how a listener is bound (low ports are the lab's business).

use std::sync::Arc;

use leno_apis::{AnyObject, Object, k8s::Secret};
use leno_model::{
    Gateway, HttpRoutes, Listener, Locality, MtlsMode, Origin, Port, Resource, SpiffeId, TlsSecret, Workload,
    WorkloadId,
};

use crate::{output::Output, pods, policies, view::View, world::ObjectKey};

pub(crate) mod attachment;
mod conditions;
mod gateway_api;
mod istio;

pub(crate) use gateway_api::{compile, serves_class};
pub(crate) use istio::{compile as compile_istio, of_pod, synthetic_name};

/// The namespace of the workloads that serve Gateways of Istio which no pod serves.
pub(crate) const ISTIO_NAMESPACE: &str = "istio-system";

/// Where mTLS of other networks comes in (Istio's convention).
pub const EAST_WEST_PORT: Port = 15443;

/// A gateway, for whoever starts its proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySummary {
    /// The workload that serves it.
    pub id: WorkloadId,
    /// Its identity.
    pub identity: SpiffeId,
    /// The ports that clients see, ascending.
    pub ports: Vec<Port>,
    /// Whether a pod of the world serves it; otherwise somebody has to start a proxy with this id and identity.
    pub has_pod: bool,
    /// The object.
    pub origin: Origin,
}

/// Adds a gateway and, when no pod stands for it, the workload that serves it.
fn emit(
    view: &View<'_>,
    gateway: Gateway,
    workload: Option<(&policies::Subject<'_>, &str)>,
    out: &mut Output,
) {
    let mut ports: Vec<Port> = gateway.listeners.iter().map(|listener| listener.port).collect();
    ports.sort_unstable();
    ports.dedup();
    out.gateway = Some(GatewaySummary {
        id: gateway.id.clone(),
        identity: gateway.identity.clone(),
        ports,
        has_pod: workload.is_none(),
        origin: gateway.origin.clone(),
    });
    if let Some((subject, name)) = workload {
        out.resource(Resource::Workload(Arc::new(Workload {
            id: gateway.id.clone(),
            identity: gateway.identity.clone(),
            address: None,
            cluster: view.settings.cluster.clone(),
            network: view.settings.network.clone(),
            locality: Locality::clone(&view.settings.locality),
            labels: pods::shared(subject.labels),
            owner: name.into(),
            canonical_name: name.into(),
            canonical_revision: "latest".into(),
            ports: Vec::new(),
            mtls: MtlsMode::Permissive,
            mtls_origin: Origin::built_in("gateway: clients are outside the mesh"),
            policies: policies::selecting(view, subject),
        })));
    }
    out.resource(Resource::Gateway(Arc::new(gateway)));
}

/// Most specific hosts first, so that the first that matches is the right one; of equals the earlier.
fn sort_listeners(listeners: &mut [Listener]) {
    for listener in listeners.iter_mut() {
        listener.routes.sort_by_key(|routes| std::cmp::Reverse(routes.host.specificity()));
    }
}

/// Appends a table to another: its entries come after all of the other's.
fn append(table: &mut HttpRoutes, more: HttpRoutes) {
    let offset = u32::try_from(table.rules.len()).unwrap_or(u32::MAX);
    table.rules.extend(more.rules);
    table.entries.extend(more.entries.into_iter().map(|mut entry| {
        entry.rule = entry.rule.saturating_add(offset);
        entry
    }));
}

/// Compiles a Secret that some gateway names.
pub(crate) fn compile_secret(view: &View<'_>, key: &ObjectKey, out: &mut Output) {
    if !view.is_secret_used(&key.name) {
        return;
    }
    if let Some(AnyObject::Secret(secret)) = view.get(key.clone()) {
        let of = |keys: &[&str]| Arc::<[u8]>::from(field(secret, keys).unwrap_or_default());
        out.resource(Resource::Secret(Arc::new(TlsSecret {
            id: secret_id(secret.namespace(), secret.name()),
            certificate: of(CERTIFICATE),
            key: of(KEY),
            ca: of(AUTHORITIES),
        })));
    }
}

const CERTIFICATE: &[&str] = &["tls.crt", "cert"];
const KEY: &[&str] = &["tls.key", "key"];
const AUTHORITIES: &[&str] = &["ca.crt", "cacert"];

fn field<'s>(secret: &'s Object<Secret>, keys: &[&str]) -> Option<&'s [u8]> {
    keys.iter().find_map(|key| secret.spec.data.get(*key)).map(Vec::as_slice)
}

fn secret_id(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}

/// Whether a Secret holds a certificate and its key, as PEM.
fn has_certificate(secret: &Object<Secret>) -> bool {
    is_pem(field(secret, CERTIFICATE)) && is_pem(field(secret, KEY))
}

/// Whether a Secret holds authorities, as PEM.
fn has_authorities(secret: &Object<Secret>) -> bool {
    is_pem(field(secret, AUTHORITIES))
}

fn is_pem(bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| bytes.windows(11).any(|window| window == b"-----BEGIN "))
}
