//! The index over a world, and the only way in which units read it.
//!
//! Invariant: an object's classes are a function of the object alone; whatever a unit learns from a [`View`] is covered by a
//! class that it has recorded, also when it learned that there is nothing. So a change can only matter to units that have
//! recorded a class of the object's old or new content.
//! Must not know: what the units do.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leno_apis::{AnyObject, Kind, Object, gateway, istio, k8s};
use leno_model::Host;

use crate::{
    exports::ExportedService,
    gateway::synthetic_name,
    hosts,
    output::age_order,
    settings::{MeshSettings, RemoteCluster},
    world::{ObjectKey, World},
};

/// A set of objects that a unit may read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// One object.
    Object(ObjectKey),
    /// All of a kind.
    Kind(Kind),
    /// All of a kind in a namespace.
    InNamespace(Kind, Arc<str>),
    /// Pods of a namespace with a label.
    Labelled(Arc<str>, Arc<str>, Arc<str>),
    /// Pods of all namespaces with a label.
    LabelledAnywhere(Arc<str>, Arc<str>),
    /// EndpointSlices of a service.
    SlicesOf(Arc<str>, Arc<str>),
    /// Services and ServiceEntries with a host.
    Declares(Arc<str>),
    /// Objects of a kind (VirtualService, DestinationRule) that name a host exactly.
    NamesHost(Kind, Arc<str>),
    /// Objects of a kind that name a host by wildcard.
    NamesWildcard(Kind),
    /// VirtualServices bound to a gateway, `namespace/name`.
    BoundTo(Arc<str>),
    /// Routes with a parent: kind (Service or Gateway), namespace, name.
    ChildOf(Kind, Arc<str>, Arc<str>),
    /// AuthorizationPolicies that target an object: kind, namespace, name.
    Targets(Arc<str>, Arc<str>, Arc<str>),
    /// Gateways of Istio whose own workload would have this name.
    Selects(Arc<str>),
    /// Gateways (of both APIs) that name a Secret of this name.
    UsesSecret(Arc<str>),
    /// What other clusters export under a host.
    Remote(Arc<str>),
}

/// The classes of an object.
pub(crate) fn classes_of(object: &AnyObject) -> BTreeSet<Class> {
    let metadata = object.metadata();
    let namespace: Arc<str> = metadata.namespace().into();
    let kind = object.kind();
    let mut classes = BTreeSet::from([
        Class::Object(ObjectKey::of(object)),
        Class::Kind(kind),
        Class::InNamespace(kind, namespace.clone()),
    ]);
    match object {
        AnyObject::Pod(_) => {
            for (key, value) in &metadata.labels {
                let (key, value): (Arc<str>, Arc<str>) = (key.as_str().into(), value.as_str().into());
                classes.insert(Class::LabelledAnywhere(key.clone(), value.clone()));
                classes.insert(Class::Labelled(namespace.clone(), key, value));
            }
        }
        AnyObject::EndpointSlice(_) => {
            if let Some(service) = metadata.label(SERVICE_NAME) {
                classes.insert(Class::SlicesOf(namespace, service.into()));
            }
        }
        AnyObject::Service(_) => {
            classes.insert(Class::Declares(kubernetes_host(&metadata.name, &namespace)));
        }
        AnyObject::ServiceEntry(entry) => {
            for host in &entry.spec.hosts {
                classes.insert(Class::Declares(host.to_ascii_lowercase().into()));
            }
        }
        AnyObject::VirtualService(rule) => {
            for host in &rule.spec.hosts {
                name_host(&mut classes, kind, host, &namespace);
            }
            for gateway in bound_gateways(&rule.spec) {
                classes.insert(Class::BoundTo(gateway_name(gateway, &namespace)));
            }
        }
        AnyObject::DestinationRule(rule) => name_host(&mut classes, kind, &rule.spec.host, &namespace),
        AnyObject::IstioGateway(gateway) => {
            classes.insert(Class::Selects(synthetic_name(&gateway.spec.selector)));
            let servers = gateway.spec.servers.iter().filter_map(|server| server.ok());
            for tls in servers.filter_map(|server| server.tls.as_ref()) {
                let names = tls
                    .credential_name
                    .iter()
                    .chain(&tls.credential_names)
                    .chain(&tls.ca_cert_credential_name);
                classes.extend(names.flat_map(|name| secret_names(name)).map(Class::UsesSecret));
            }
        }
        AnyObject::Gateway(gateway) => {
            let listeners = gateway.spec.listeners.iter().filter_map(|listener| listener.ok());
            let certificates =
                listeners.filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificate_refs);
            classes.extend(certificates.map(|secret| Class::UsesSecret(secret.name.as_str().into())));
        }
        AnyObject::AuthorizationPolicy(policy) => {
            for target in policy.spec.selection.ok().into_iter().flat_map(|selection| &selection.targets) {
                classes.insert(Class::Targets(
                    target.kind.as_str().into(),
                    namespace.clone(),
                    target.name.as_str().into(),
                ));
            }
        }
        AnyObject::HttpRoute(route) => children(&mut classes, &route.spec.parent_refs, &namespace),
        AnyObject::GrpcRoute(route) => children(&mut classes, &route.spec.parent_refs, &namespace),
        AnyObject::TcpRoute(route) => children(&mut classes, &route.spec.parent_refs, &namespace),
        AnyObject::TlsRoute(route) => children(&mut classes, &route.spec.parent_refs, &namespace),
        _ => {}
    }
    classes
}

/// The label that names an EndpointSlice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The host of a Kubernetes Service.
pub(crate) fn kubernetes_host(name: &str, namespace: &str) -> Arc<str> {
    format!("{name}.{namespace}{}", hosts::DOMAIN).into()
}

/// The Secrets that a credential name of Istio may mean: client authorities may be in a second one.
pub(crate) fn secret_names(credential: &str) -> [Arc<str>; 2] {
    [credential.into(), format!("{credential}-cacert").into()]
}

/// The gateways that a VirtualService (or a match of it) names, without `mesh`.
fn bound_gateways(rule: &istio::VirtualService) -> BTreeSet<&str> {
    let of_http =
        rule.http.iter().flat_map(|route| &route.matches).filter_map(|found| found.ok()).map(|m| &m.gateways);
    let of_tcp =
        rule.tcp.iter().flat_map(|route| &route.matches).filter_map(|found| found.ok()).map(|m| &m.gateways);
    let of_tls = rule
        .tls
        .iter()
        .flat_map(|route| &route.matches)
        .filter_map(|found| found.ok())
        .map(|m| &m.stream.gateways);
    let named = of_http.chain(of_tcp).chain(of_tls).flatten().chain(&rule.gateways);
    named.map(|gateway| gateway.value.as_str()).filter(|gateway| *gateway != "mesh").collect()
}

/// `namespace/name` of a gateway that an object of `namespace` names: by `NAME`, `NAMESPACE/NAME` (`.` is its own), or, as
/// Istio still takes it, `NAME.NAMESPACE` with or without the rest of a host name.
pub(crate) fn gateway_name(text: &str, namespace: &str) -> Arc<str> {
    if let Some(own) = text.strip_prefix("./") {
        return format!("{namespace}/{own}").into();
    }
    if text.contains('/') {
        return text.into();
    }
    let mut parts = text.split('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(of)) => format!("{of}/{name}").into(),
        _ => format!("{namespace}/{text}").into(),
    }
}

fn name_host(classes: &mut BTreeSet<Class>, kind: Kind, host: &str, namespace: &str) {
    for meaning in hosts::meanings(host, namespace) {
        if hosts::is_wildcard(&meaning) {
            classes.insert(Class::NamesWildcard(kind));
        } else {
            classes.insert(Class::NamesHost(kind, meaning.into()));
        }
    }
}

fn children(classes: &mut BTreeSet<Class>, parents: &[leno_apis::Rule<gateway::ParentRef>], namespace: &str) {
    for parent in parents.iter().filter_map(|parent| parent.ok()) {
        let of = parent.namespace.as_deref().unwrap_or(namespace);
        if let Some(found) = Kind::find(&parent.group, &parent.kind) {
            classes.insert(Class::ChildOf(found.kind, of.into(), parent.name.as_str().into()));
        }
    }
}

/// Which objects are in which class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    members: BTreeMap<Class, BTreeSet<ObjectKey>>,
}

impl Index {
    /// Adds an object.
    pub(crate) fn insert(&mut self, object: &AnyObject) {
        let key = ObjectKey::of(object);
        for class in classes_of(object) {
            self.members.entry(class).or_default().insert(key.clone());
        }
    }

    /// Removes an object by its old content.
    pub(crate) fn remove(&mut self, object: &AnyObject) {
        let key = ObjectKey::of(object);
        for class in classes_of(object) {
            if let Some(members) = self.members.get_mut(&class) {
                members.remove(&key);
                if members.is_empty() {
                    self.members.remove(&class);
                }
            }
        }
    }
}

/// What one unit sees of everything, and a record of what it looked at.
pub(crate) struct View<'w> {
    world: &'w World,
    index: &'w Index,
    remotes: &'w [RemoteCluster],
    /// The mesh's settings.
    pub(crate) settings: &'w MeshSettings,
    reads: RefCell<BTreeSet<Class>>,
}

macro_rules! typed {
    ($($(#[$doc:meta])* $one:ident, $variant:ident, $spec:ty;)*) => {
        $($(#[$doc])*
        pub(crate) fn $one(&self, namespace: &str, name: &str) -> Option<&'w Object<$spec>> {
            match self.get(ObjectKey::new(Kind::$variant, namespace, name))? {
                AnyObject::$variant(object) => Some(object),
                _ => None,
            }
        })*
    };
}

/// Objects of one type among others, oldest first.
macro_rules! pick {
    ($objects:expr, $variant:ident) => {{
        let mut found: Vec<_> = $objects
            .filter_map(|object| match object {
                AnyObject::$variant(object) => Some(object),
                _ => None,
            })
            .collect();
        found.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
        found
    }};
}

impl<'w> View<'w> {
    /// A view that has recorded nothing.
    pub(crate) fn new(
        world: &'w World,
        index: &'w Index,
        settings: &'w MeshSettings,
        remotes: &'w [RemoteCluster],
    ) -> Self {
        Self { world, index, remotes, settings, reads: RefCell::default() }
    }

    /// What was looked at.
    pub(crate) fn into_reads(self) -> BTreeSet<Class> {
        self.reads.into_inner()
    }

    /// One object.
    pub(crate) fn get(&self, key: ObjectKey) -> Option<&'w AnyObject> {
        let found = self.world.get(&key).map(AsRef::as_ref);
        self.reads.borrow_mut().insert(Class::Object(key));
        found
    }

    /// All objects of a class, by key.
    fn of(&self, class: Class) -> impl Iterator<Item = &'w AnyObject> + use<'w> {
        let world = self.world;
        let members = self.index.members.get(&class);
        self.reads.borrow_mut().insert(class);
        members.into_iter().flatten().filter_map(move |key| world.get(key)).map(AsRef::as_ref)
    }

    typed! {
        /// A Service.
        service, Service, k8s::Service;
        /// A Pod.
        pod, Pod, k8s::Pod;
        /// A Node (of no namespace).
        node, Node, k8s::Node;
        /// A Namespace (of no namespace).
        namespace, Namespace, k8s::Namespace;
        /// A Secret.
        secret, Secret, k8s::Secret;
        /// A Gateway of the Gateway API.
        gateway, Gateway, gateway::Gateway;
        /// A GatewayClass (of no namespace).
        gateway_class, GatewayClass, gateway::GatewayClass;
        /// A Gateway of Istio.
        istio_gateway, IstioGateway, istio::Gateway;
    }

    /// The pods of a namespace that have all labels of a selector, by name. An empty selector selects all.
    pub(crate) fn pods(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> Vec<&'w Object<k8s::Pod>> {
        let class = match selector.first_key_value() {
            Some((key, value)) => {
                Class::Labelled(namespace.into(), key.as_str().into(), value.as_str().into())
            }
            None => Class::InNamespace(Kind::Pod, namespace.into()),
        };
        self.of(class)
            .filter_map(|object| match object {
                AnyObject::Pod(pod) => Some(pod),
                _ => None,
            })
            .filter(|pod| selects(selector, &pod.metadata.labels))
            .collect()
    }

    /// The pods of all namespaces with all labels of a selector.
    pub(crate) fn pods_anywhere(&self, selector: &BTreeMap<String, String>) -> Vec<&'w Object<k8s::Pod>> {
        let class = match selector.first_key_value() {
            Some((key, value)) => Class::LabelledAnywhere(key.as_str().into(), value.as_str().into()),
            None => Class::Kind(Kind::Pod),
        };
        let pods = self.of(class).filter_map(|object| match object {
            AnyObject::Pod(pod) => Some(pod),
            _ => None,
        });
        pods.filter(|pod| selects(selector, &pod.metadata.labels)).collect()
    }

    /// The EndpointSlices of a service.
    pub(crate) fn slices(&self, namespace: &str, service: &str) -> Vec<&'w Object<k8s::EndpointSlice>> {
        pick!(self.of(Class::SlicesOf(namespace.into(), service.into())), EndpointSlice)
    }

    /// The Services of a namespace, oldest first.
    pub(crate) fn services(&self, namespace: &str) -> Vec<&'w Object<k8s::Service>> {
        pick!(self.of(Class::InNamespace(Kind::Service, namespace.into())), Service)
    }

    /// The Service with a host.
    pub(crate) fn service_with(&self, host: &str) -> Vec<&'w Object<k8s::Service>> {
        pick!(self.of(Class::Declares(host.into())), Service)
    }

    /// The ServiceEntries with a host, oldest first.
    pub(crate) fn entries_with(&self, host: &str) -> Vec<&'w Object<istio::ServiceEntry>> {
        pick!(self.of(Class::Declares(host.into())), ServiceEntry)
    }

    /// The DestinationRules that may name a host, exactly or by wildcard, oldest first.
    pub(crate) fn destination_rules(&self, host: &str) -> Vec<&'w Object<istio::DestinationRule>> {
        let exact = self.of(Class::NamesHost(Kind::DestinationRule, host.into()));
        pick!(exact.chain(self.of(Class::NamesWildcard(Kind::DestinationRule))), DestinationRule)
    }

    /// The VirtualServices that may name a host, exactly or by wildcard, oldest first.
    pub(crate) fn virtual_services(&self, host: &str) -> Vec<&'w Object<istio::VirtualService>> {
        let exact = self.of(Class::NamesHost(Kind::VirtualService, host.into()));
        pick!(exact.chain(self.of(Class::NamesWildcard(Kind::VirtualService))), VirtualService)
    }

    /// The VirtualServices bound to a gateway (`namespace/name`), oldest first.
    pub(crate) fn virtual_services_of(&self, gateway: &str) -> Vec<&'w Object<istio::VirtualService>> {
        pick!(self.of(Class::BoundTo(gateway.into())), VirtualService)
    }

    /// All Gateways of Istio, oldest first.
    pub(crate) fn all_istio_gateways(&self) -> Vec<&'w Object<istio::Gateway>> {
        pick!(self.of(Class::Kind(Kind::IstioGateway)), IstioGateway)
    }

    /// The Gateways of Istio whose own workload would have this name, oldest first.
    pub(crate) fn istio_gateways(&self, selector: &str) -> Vec<&'w Object<istio::Gateway>> {
        pick!(self.of(Class::Selects(selector.into())), IstioGateway)
    }

    /// Whether some gateway names a Secret of this name.
    pub(crate) fn is_secret_used(&self, name: &str) -> bool {
        self.of(Class::UsesSecret(name.into())).next().is_some()
    }

    /// The HTTPRoutes with a parent, oldest first.
    pub(crate) fn http_routes(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Vec<&'w Object<gateway::HttpRoute>> {
        pick!(self.of(Class::ChildOf(kind, namespace.into(), name.into())), HttpRoute)
    }

    /// The GRPCRoutes with a parent, oldest first.
    pub(crate) fn grpc_routes(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Vec<&'w Object<gateway::GrpcRoute>> {
        pick!(self.of(Class::ChildOf(kind, namespace.into(), name.into())), GrpcRoute)
    }

    /// The TCPRoutes with a parent, oldest first.
    pub(crate) fn tcp_routes(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Vec<&'w Object<gateway::TcpRoute>> {
        pick!(self.of(Class::ChildOf(kind, namespace.into(), name.into())), TcpRoute)
    }

    /// The TLSRoutes with a parent, oldest first.
    pub(crate) fn tls_routes(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Vec<&'w Object<gateway::TlsRoute>> {
        pick!(self.of(Class::ChildOf(kind, namespace.into(), name.into())), TlsRoute)
    }

    /// The ReferenceGrants of a namespace.
    pub(crate) fn grants(&self, namespace: &str) -> Vec<&'w Object<gateway::ReferenceGrant>> {
        pick!(self.of(Class::InNamespace(Kind::ReferenceGrant, namespace.into())), ReferenceGrant)
    }

    /// The PeerAuthentications of a namespace, oldest first, with those that could not be read.
    pub(crate) fn in_namespace(&self, kind: Kind, namespace: &str) -> Vec<&'w AnyObject> {
        self.of(Class::InNamespace(kind, namespace.into())).collect()
    }

    /// What other clusters export under a host.
    pub(crate) fn remote(&self, host: &Host) -> Vec<(&'w RemoteCluster, &'w ExportedService)> {
        self.reads.borrow_mut().insert(Class::Remote(host.shared()));
        let exports =
            self.remotes.iter().flat_map(|remote| remote.exports.iter().map(move |export| (remote, export)));
        exports.filter(|(_, export)| export.service.host == *host).collect()
    }
}

/// Whether labels satisfy a selector.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
