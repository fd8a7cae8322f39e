//! Gateways of Istio: all that one workload serves, merged into one.
//!
//! Invariants: those that pods serve are served by those pods; the others by a workload of their own, named after their
//! selector; of servers that exclude each other the oldest Gateway's serves. The mesh's own east-west gateway needs no object.
//! Must not know: the Gateway API.

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::{
    Diagnostic, Object, Rule, Spanned,
    istio::gateway::{Gateway, Server, ServerProtocol, ServerTls, ServerTlsMode, TlsVersion},
    k8s::Pod,
};
use leno_model::{
    GatewayProtocol, GatewayTls, HostPattern, HostRoutes, HttpRoutes, Listener, Namespace, Origin, SpiffeId,
    WorkloadId,
};

use super::{
    EAST_WEST_PORT, ISTIO_NAMESPACE, attachment, emit, has_authorities, has_certificate, secret_id,
    sort_listeners,
};
use crate::{
    backends::Context,
    codes, hosts,
    output::{Output, key_of, origin},
    pods, policies,
    status::{ACCEPTED, Condition},
    view::{View, selects},
    virtual_service::{self, Place},
};

type GatewayObject = Object<Gateway>;

/// The name of the workload that serves Gateways with a selector that selects no pod: the value of `istio`, else of `app`, else
/// of its first label.
pub(crate) fn synthetic_name(selector: &BTreeMap<String, String>) -> Arc<str> {
    let value = selector.get("istio").or_else(|| selector.get("app")).or_else(|| selector.values().next());
    value.map_or("gateway", String::as_str).into()
}

/// Compiles the Gateways that are served by a workload of their own, of this name.
pub(crate) fn compile(view: &View<'_>, name: &str, out: &mut Output) {
    let gateways = view.istio_gateways(name);
    let served: Vec<&GatewayObject> = gateways
        .into_iter()
        .filter(|gateway| view.pods_anywhere(&gateway.spec.selector).is_empty())
        .collect();
    let Some(oldest) = served.first() else { return };
    let labels = &oldest.spec.selector;
    let account =
        if labels.contains_key("istio") { format!("istio-{name}-service-account") } else { name.to_owned() };
    let Ok(identity) = SpiffeId::workload(&view.settings.trust_domain, ISTIO_NAMESPACE, &account) else {
        let text = format!("{account:?} cannot be the service account of an identity");
        out.report_on(oldest, Diagnostic::error(codes::NO_IDENTITY, oldest.source.clone(), text));
        return;
    };
    let id = WorkloadId::new(ISTIO_NAMESPACE, name);
    let listeners = Builder::new(view, ISTIO_NAMESPACE).listeners(&served, out);
    let subject =
        policies::Subject { namespace: ISTIO_NAMESPACE, labels, services: Vec::new(), gateway: None };
    let gateway = leno_model::Gateway { id, identity, listeners, origin: origin(oldest, &oldest.source) };
    emit(view, gateway, Some((&subject, name)), out);
}

/// Whether a pod is the mesh's own east-west gateway, by Istio's label, where only the mesh's owners may start pods.
fn is_east_west(view: &View<'_>, pod: &Object<Pod>) -> bool {
    view.settings.root_namespace.as_str() == pod.namespace()
        && pod.metadata.label(EAST_WEST.0) == Some(EAST_WEST.1)
}

/// The label of our own east-west gateways, which an installation writes and nobody else; so it is in the guide of several clusters,
/// and not in the table of what users write.
const EAST_WEST: (&str, &str) = ("istio", "eastwestgateway");

/// What Istio's users write as a Gateway with `AUTO_PASSTHROUGH` for `*.local`.
fn east_west() -> Listener {
    Listener {
        name: "tls".into(),
        port: EAST_WEST_PORT,
        protocol: GatewayProtocol::MeshPassthrough,
        host: HostPattern::parse("*.local"),
        routes: Vec::new(),
        tcp: Vec::new(),
        https_redirect: false,
        origin: Origin::built_in("east-west gateway: mTLS of other networks passes through"),
    }
}

/// The Gateways that a pod serves.
pub(crate) fn of_pod(view: &View<'_>, pod: &Object<Pod>, out: &mut Output) {
    let served: Vec<&GatewayObject> = view
        .all_istio_gateways()
        .into_iter()
        .filter(|gateway| {
            !gateway.spec.selector.is_empty() && selects(&gateway.spec.selector, &pod.metadata.labels)
        })
        .collect();
    let Some(identity) = pods::identity(view, pod) else { return };
    let mut listeners = Builder::new(view, pod.namespace()).listeners(&served, out);
    if is_east_west(view, pod) && listeners.iter().all(|listener| listener.port != EAST_WEST_PORT) {
        listeners.push(east_west());
    }
    let origin = match (served.first(), listeners.first()) {
        (Some(oldest), _) => origin(*oldest, &oldest.source),
        (None, Some(listener)) => listener.origin.clone(),
        (None, None) => return,
    };
    emit(view, leno_model::Gateway { id: pods::id(pod), identity, listeners, origin }, None, out);
}

struct Builder<'b, 'w> {
    view: &'b View<'w>,
    /// The namespace of the workload that serves.
    consumer: Namespace,
}

impl<'b, 'w> Builder<'b, 'w> {
    fn new(view: &'b View<'w>, namespace: &str) -> Self {
        Self { view, consumer: namespace.into() }
    }

    fn listeners(&self, gateways: &[&GatewayObject], out: &mut Output) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for gateway in gateways {
            for server in gateway.spec.servers.iter().filter_map(Rule::ok) {
                for host in &server.hosts {
                    let listener = self.listener(gateway, server, host, out);
                    match listeners.iter().find(|earlier| excludes(earlier, &listener)) {
                        Some(earlier) => {
                            let text = format!(
                                "port {} is already served otherwise by {}",
                                listener.port, earlier.origin
                            );
                            out.report_on(
                                gateway,
                                Diagnostic::error(codes::CONFLICT, server.at.clone(), text.clone()),
                            );
                            out.status(key_of(*gateway)).say(ACCEPTED, Condition::no("Conflict", text));
                        }
                        None => merge(&mut listeners, listener),
                    }
                }
            }
            out.status(key_of(*gateway)).say(ACCEPTED, Condition::yes("Accepted"));
        }
        sort_listeners(&mut listeners);
        listeners
    }

    fn listener(
        &self,
        gateway: &GatewayObject,
        server: &Server,
        host: &Spanned<String>,
        out: &mut Output,
    ) -> Listener {
        let (scope, host) = host.split_once('/').unwrap_or(("*", host));
        let host = HostPattern::parse(host);
        let protocol = self.protocol(gateway, server, out);
        let mut listener = Listener {
            name: server.name.as_deref().unwrap_or(&server.port.name).into(),
            port: *server.port.number,
            protocol,
            host,
            routes: Vec::new(),
            tcp: Vec::new(),
            https_redirect: server.tls.as_ref().is_some_and(|tls| tls.https_redirect),
            origin: origin(gateway, &server.at),
        };
        let is_http = matches!(listener.protocol, GatewayProtocol::Http | GatewayProtocol::Https(_));
        let name = format!("{}/{}", gateway.namespace(), gateway.name());
        let place = Place::Gateway(&name);
        let context = Context { view: self.view, consumer: Some(&self.consumer), port: listener.port };
        for rule in self.view.virtual_services_of(&name) {
            let in_scope = match scope {
                "*" => true,
                "." => rule.namespace() == gateway.namespace(),
                namespace => rule.namespace() == namespace,
            };
            let exposure = hosts::exposure_of(&rule.spec.export_to, rule.namespace());
            if !in_scope || !exposure.includes(&self.consumer) {
                continue;
            }
            let mut shared: Vec<HostPattern> = rule
                .spec
                .hosts
                .iter()
                .filter_map(|host| hosts::meanings(host, rule.namespace()).into_iter().next())
                .filter_map(|host| attachment::intersection(&listener.host, &HostPattern::parse(&host)))
                .collect();
            shared.sort();
            shared.dedup();
            if shared.is_empty() {
                continue;
            }
            if !is_http {
                listener.tcp.extend(virtual_service::stream_entries(context, place, rule, out));
                continue;
            }
            for host in shared {
                let routes = routes_of(&mut listener.routes, host);
                virtual_service::http_entries(context, place, rule, routes, out);
            }
        }
        listener
    }

    fn protocol(&self, gateway: &GatewayObject, server: &Server, out: &mut Output) -> GatewayProtocol {
        let tls = server.tls.as_ref();
        let mode = tls.map(|tls| tls.mode);
        match (server.port.protocol, mode) {
            (_, Some(ServerTlsMode::AutoPassthrough)) => GatewayProtocol::MeshPassthrough,
            (ServerProtocol::Https | ServerProtocol::Tls, Some(ServerTlsMode::Passthrough)) => {
                GatewayProtocol::TlsPassthrough
            }
            (ServerProtocol::Https, _) => GatewayProtocol::Https(self.tls(gateway, server, out)),
            (ServerProtocol::Tls, _) => GatewayProtocol::Tls(self.tls(gateway, server, out)),
            (ServerProtocol::Tcp | ServerProtocol::Mongo, None | Some(ServerTlsMode::Passthrough)) => {
                GatewayProtocol::Tcp
            }
            (ServerProtocol::Tcp | ServerProtocol::Mongo, Some(_)) => {
                GatewayProtocol::Tls(self.tls(gateway, server, out))
            }
            (
                ServerProtocol::Http | ServerProtocol::Http2 | ServerProtocol::Grpc | ServerProtocol::GrpcWeb,
                _,
            ) => GatewayProtocol::Http,
        }
    }

    fn tls(&self, gateway: &GatewayObject, server: &Server, out: &mut Output) -> GatewayTls {
        let nothing = GatewayTls { certificates: Vec::new(), client_ca: None, allow_tls12: true };
        let mut refuse = |at: &leno_apis::Source, text: String| {
            out.report_on(gateway, Diagnostic::error(codes::INVALID_CERTIFICATE, at.clone(), text.clone()));
            out.status(key_of(gateway)).say(ACCEPTED, Condition::no("InvalidCertificate", text));
        };
        let Some(tls) = &server.tls else {
            refuse(&server.at, "a server of this protocol needs `tls`: handshakes are refused".to_owned());
            return nothing;
        };
        if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::OptionalMutual) {
            refuse(
                &tls.at,
                "this TLS mode is not supported by this release: handshakes are refused".to_owned(),
            );
            return nothing;
        }
        let mut certificates = Vec::new();
        for name in tls.credential_name.iter().chain(&tls.credential_names) {
            match self.secret(gateway, name, has_certificate) {
                Some(id) => certificates.push(id),
                None => refuse(&name.at, format!("no Secret {:?} with a certificate is found", name.value)),
            }
        }
        if let Some(file) = &tls.server_certificate {
            refuse(
                &file.at,
                "certificates of files are not supported by this release: use `credentialName`".to_owned(),
            );
        }
        let client_ca = match tls.mode {
            ServerTlsMode::Mutual => match self.client_authorities(gateway, tls) {
                Some(id) => Some(id),
                None => {
                    refuse(
                        &tls.at,
                        "MUTUAL without authorities of clients: handshakes are refused".to_owned(),
                    );
                    certificates.clear();
                    None
                }
            },
            _ => None,
        };
        let allow_tls12 = tls.min_version.is_none_or(|version| version < TlsVersion::V1_3);
        GatewayTls { certificates, client_ca, allow_tls12 }
    }

    /// `caCertCredentialName`, else the certificate's own Secret, else the one with `-cacert` at its end.
    fn client_authorities(&self, gateway: &GatewayObject, tls: &ServerTls) -> Option<Arc<str>> {
        let given = tls.ca_cert_credential_name.iter().map(|name| name.value.clone());
        let own = tls
            .credential_name
            .iter()
            .flat_map(|name| [name.value.clone(), format!("{}-cacert", name.value)]);
        given.chain(own).find_map(|name| self.secret(gateway, &name, has_authorities))
    }

    /// A Secret in the namespace of the workload that serves (as Istio demands), else in the Gateway's.
    fn secret(
        &self,
        gateway: &GatewayObject,
        name: &str,
        usable: fn(&Object<leno_apis::k8s::Secret>) -> bool,
    ) -> Option<Arc<str>> {
        let root = self.view.settings.root_namespace.as_str();
        [self.consumer.as_str(), gateway.namespace(), root].into_iter().find_map(|namespace| {
            self.view
                .secret(namespace, name)
                .filter(|secret| usable(secret))
                .map(|_| secret_id(namespace, name))
        })
    }
}

fn routes_of(routes: &mut Vec<HostRoutes>, host: HostPattern) -> &mut HttpRoutes {
    let index = routes.iter().position(|known| known.host == host).unwrap_or_else(|| {
        routes.push(HostRoutes { host, routes: HttpRoutes::default() });
        routes.len() - 1
    });
    &mut routes[index].routes
}

/// Whether two listeners cannot both serve their port.
fn excludes(earlier: &Listener, later: &Listener) -> bool {
    let family = |protocol: &GatewayProtocol| match protocol {
        GatewayProtocol::Http => 0,
        GatewayProtocol::Tcp => 2,
        GatewayProtocol::Https(_)
        | GatewayProtocol::Tls(_)
        | GatewayProtocol::TlsPassthrough
        | GatewayProtocol::MeshPassthrough => 1,
    };
    earlier.port == later.port && family(&earlier.protocol) != family(&later.protocol)
}

/// Adds a listener, or its routes to the one with the same port and host.
fn merge(listeners: &mut Vec<Listener>, listener: Listener) {
    let same = |known: &&mut Listener| {
        known.port == listener.port && known.host == listener.host && known.protocol == listener.protocol
    };
    let Some(known) = listeners.iter_mut().find(same) else {
        listeners.push(listener);
        return;
    };
    for host in listener.routes {
        super::append(routes_of(&mut known.routes, host.host), host.routes);
    }
    known.tcp.extend(listener.tcp);
    known.https_redirect |= listener.https_redirect;
}
