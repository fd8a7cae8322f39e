//! Gateways of both APIs.

use leno_model::{GatewayProtocol, HostPattern};

use super::*;
use crate::{
    ObjectKey,
    status::{ACCEPTED, CONFLICTED, RESOLVED_REFS},
};

fn gateway(compiled: &Compiled, namespace: &str, name: &str) -> Arc<leno_model::Gateway> {
    match &compiled.resources[&ResourceKey::gateway(&WorkloadId::new(namespace, name))] {
        Resource::Gateway(found) => found.clone(),
        _ => unreachable!(),
    }
}

const EDGE: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: web}
spec:
  gatewayClassName: leno
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: '*.example.com', allowedRoutes: {namespaces: {from: All}}}
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: web, sectionName: http}]
  hostnames: [cart.example.com, cart.elsewhere.org]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: any, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: web, sectionName: http}]
  rules: [{matches: [{path: {value: /any}}], backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: web, sectionName: https}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
";

#[test]
fn routes_attach_where_listener_namespace_and_host_allow() {
    let compiled = compiled(&(application("shop", "cart") + EDGE));
    let edge = gateway(&compiled, "web", "edge");
    assert_eq!(edge.identity.as_str(), "spiffe://cluster.local/ns/web/sa/edge-leno");
    let [http, https] = edge.listeners.as_slice() else { panic!("{edge:?}") };
    let hosts: Vec<_> = http.routes.iter().map(|routes| routes.host.to_string()).collect();
    assert_eq!(hosts, ["cart.example.com", "*.example.com"]);
    // Behind the rules of the host itself come those of the wildcard.
    assert_eq!(http.routes[0].routes.entries.len(), 2);
    assert_eq!(http.routes[1].routes.entries.len(), 1);
    assert!(https.routes.is_empty());
    let status = |name: &str| compiled.statuses[&ObjectKey::new(Kind::HttpRoute, "shop", name)].clone();
    assert!(status("cart").parents.values().next().unwrap().conditions[ACCEPTED].status);
    let lost = status("lost").parents.values().next().unwrap().conditions[ACCEPTED].clone();
    assert_eq!((lost.status, lost.reason), (false, "NotAllowedByListeners"));
    let listeners = compiled.statuses[&ObjectKey::new(Kind::Gateway, "web", "edge")].listeners.clone();
    assert_eq!(listeners["http"].attached_routes, 2);
    assert!(!listeners["http"].conditions[CONFLICTED].status);
    assert_eq!(listeners["https"].conditions[RESOLVED_REFS].reason, "InvalidCertificateRef");
    assert_eq!(compiled.gateways()[0].ports, [80, 443]);
}

#[test]
fn of_listeners_that_exclude_each_other_none_serves_and_the_others_do() {
    let edge = EDGE.replace(
        "  - {name: https,",
        "  - {name: again, port: 80, protocol: HTTP, hostname: '*.Example.com'}\n  - {name: https,",
    );
    let compiled = compiled(&(application("shop", "cart") + &edge));
    let names: Vec<_> =
        gateway(&compiled, "web", "edge").listeners.iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["https"]);
    let status = compiled.statuses[&ObjectKey::new(Kind::Gateway, "web", "edge")].clone();
    for name in ["http", "again"] {
        assert!(status.listeners[name].conditions[CONFLICTED].status, "{name}");
        assert_eq!(status.listeners[name].attached_routes, 0);
    }
    assert!(!status.listeners["https"].conditions[CONFLICTED].status);
    let accepted = &status.conditions[ACCEPTED];
    assert_eq!((accepted.status, accepted.reason), (true, "ListenersNotValid"), "a part of it serves");
    assert!(accepted.message.contains("http, again; accepted: https"), "{}", accepted.message);
    let route = compiled.statuses[&ObjectKey::new(Kind::HttpRoute, "shop", "cart")].clone();
    assert!(!route.parents.values().next().unwrap().conditions[ACCEPTED].status);
}

#[test]
fn a_listener_of_a_protocol_that_is_not_carried_says_so_and_the_gateway_is_accepted_for_the_others() {
    let odd = "  - {name: odd, port: 1111, protocol: INVALID}\n";
    let text = |listeners: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: web}}\n\
             spec:\n  gatewayClassName: leno\n  listeners:\n{listeners}"
        )
    };
    let status = |listeners: &str| {
        let world = World::of(partly_refused(&text(listeners)));
        let compiled = compile(&world, &MeshSettings::default(), &[]);
        compiled.statuses[&ObjectKey::new(Kind::Gateway, "web", "edge")].clone()
    };
    let said = |condition: &crate::status::Condition| (condition.status, condition.reason);
    let partly = status(&format!("  - {{name: http, port: 80, protocol: HTTP}}\n{odd}"));
    assert_eq!(said(&partly.conditions[ACCEPTED]), (true, "ListenersNotValid"));
    assert_eq!(said(&partly.listeners["odd"].conditions[ACCEPTED]), (false, "UnsupportedProtocol"));
    assert!(partly.listeners["odd"].supported_kinds.is_empty());
    assert_eq!(said(&partly.listeners["http"].conditions[ACCEPTED]), (true, "Accepted"));
    let not = status(odd);
    assert_eq!(said(&not.conditions[ACCEPTED]), (false, "ListenersNotValid"));
    assert!(!not.conditions[crate::status::PROGRAMMED].status);
}

#[test]
fn tls_listeners_of_one_port_that_share_hosts_say_so() {
    let edge = EDGE.replace(
        "  - {name: https,",
        "  - {name: narrow, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: cert}]}}\n  - {name: https,",
    );
    let compiled = compiled(&(application("shop", "cart") + &edge));
    let listeners = compiled.statuses[&ObjectKey::new(Kind::Gateway, "web", "edge")].listeners.clone();
    for name in ["narrow", "https"] {
        let overlap = &listeners[name].conditions[crate::status::OVERLAPPING_TLS_CONFIG];
        assert_eq!((overlap.status, overlap.reason), (true, "OverlappingHostnames"), "{name}");
    }
    assert!(!listeners["http"].conditions.contains_key(crate::status::OVERLAPPING_TLS_CONFIG));
}

#[test]
fn a_listener_that_passes_tls_through_takes_no_tcp_routes() {
    let text = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: web}
spec:
  gatewayClassName: leno
  listeners:
  - {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TLSRoute}, {kind: TCPRoute}]}}
";
    let compiled = compiled(text);
    let listener = &compiled.statuses[&ObjectKey::new(Kind::Gateway, "web", "edge")].listeners["tls"];
    assert_eq!(listener.supported_kinds, [("gateway.networking.k8s.io", "TLSRoute")]);
    assert_eq!(listener.conditions[RESOLVED_REFS].reason, "InvalidRouteKinds");
}

#[test]
fn a_certificate_goes_to_the_gateway_that_names_it_only() {
    let secret = "---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: web}
stringData: {tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}
---
apiVersion: v1
kind: Secret
metadata: {name: unused, namespace: web}
stringData: {tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}
";
    let compiled = compiled(&(application("shop", "cart") + EDGE + secret));
    let own = compiled.own(&WorkloadId::new("web", "edge")).unwrap();
    assert!(own.contains(&ResourceKey::secret("web/cert")));
    assert!(own.contains(&ResourceKey::endpoints(&service("shop", "cart"))));
    assert!(
        !compiled.own(&WorkloadId::new("shop", "cart-0")).unwrap().contains(&ResourceKey::secret("web/cert"))
    );
    assert!(!compiled.resources.contains_key(&ResourceKey::secret("web/unused")));
    let edge = gateway(&compiled, "web", "edge");
    let GatewayProtocol::Https(tls) = &edge.listeners[1].protocol else { panic!("{edge:?}") };
    assert_eq!(*tls.certificates, ["web/cert".into()]);
}

const INGRESS: &str = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com'], tls: {httpsRedirect: true}}
  - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart.example.com, cart.elsewhere.org]
  gateways: [edge]
  http: [{route: [{destination: {host: cart}}]}]
";

#[test]
fn gateways_of_istio_that_no_pod_serves_get_a_workload_of_their_own() {
    let compiled = compiled(&(application("shop", "cart") + INGRESS));
    let [summary] = compiled.gateways() else { panic!("{:?}", compiled.gateways()) };
    assert_eq!((summary.id.to_string().as_str(), summary.has_pod), ("istio-system/ingressgateway", false));
    assert_eq!(
        summary.identity.as_str(),
        "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
    );
    let edge = gateway(&compiled, "istio-system", "ingressgateway");
    let [http, east_west] = edge.listeners.as_slice() else { panic!("{edge:?}") };
    assert!(http.https_redirect);
    assert_eq!(http.routes[0].host, HostPattern::parse("cart.example.com"));
    assert_eq!(http.routes.len(), 1);
    assert_eq!(east_west.protocol, GatewayProtocol::MeshPassthrough);
    // Bound to the gateway alone, it says nothing about the mesh.
    assert!(routes(&compiled, &service("shop", "cart"), None).is_none());
}

#[test]
fn gateways_of_istio_are_served_by_the_pods_that_they_select() {
    let pods = application("shop", "ingress")
        .replace("labels: {app: ingress, version: v1}", "labels: {istio: ingressgateway}");
    let compiled = compiled(&(application("shop", "cart") + &pods + INGRESS));
    let [summary] = compiled.gateways() else { panic!("{:?}", compiled.gateways()) };
    assert_eq!((summary.id.to_string().as_str(), summary.has_pod), ("shop/ingress-0", true));
    assert_eq!(gateway(&compiled, "shop", "ingress-0").listeners.len(), 2);
}

const EAST_WEST: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: leno-eastwest-0, namespace: leno-system, labels: {istio: eastwestgateway, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: leno-eastwest, containers: [{name: istio-proxy}]}
status: {podIP: 127.0.0.9, phase: Running}
";

#[test]
fn the_meshs_own_east_west_gateway_passes_mtls_through_without_any_object() {
    let both = compiled(&(application("shop", "cart") + EAST_WEST));
    let east_west = gateway(&both, "leno-system", "leno-eastwest-0");
    assert_eq!(east_west.identity.as_str(), "spiffe://cluster.local/ns/leno-system/sa/leno-eastwest");
    let [listener] = east_west.listeners.as_slice() else { panic!("{east_west:?}") };
    assert_eq!((listener.port, &listener.protocol), (15443, &GatewayProtocol::MeshPassthrough));
    // Whoever may start pods elsewhere does not open the mesh by a label.
    for elsewhere in ["shop", "istio-system"] {
        assert_eq!(compiled(&EAST_WEST.replace("leno-system", elsewhere)).gateways(), [], "{elsewhere}");
    }
}

#[test]
fn a_gateway_of_istio_for_it_adds_to_it() {
    let servers = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: cross-network-gateway, namespace: leno-system}
spec:
  selector: {istio: eastwestgateway}
  servers:
  - {port: {number: PORT, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}
";
    let ports = |port: &str| -> Vec<u16> {
        let compiled = compiled(&(EAST_WEST.to_owned() + &servers.replace("PORT", port)));
        gateway(&compiled, "leno-system", "leno-eastwest-0").listeners.iter().map(|it| it.port).collect()
    };
    assert_eq!(ports("15443"), [15443]);
    assert_eq!(ports("443"), [443, 15443]);
}

#[test]
fn a_route_of_a_gateway_needs_a_grant_for_a_backend_elsewhere() {
    let route = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: web}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: cart, namespace: shop, port: 80}]}]
";
    let grant = "---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: shop}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}]
  to: [{group: '', kind: Service}]
";
    let forwards_to = |yaml: String| {
        let compiled = compiled(&yaml);
        let status = &compiled.statuses[&ObjectKey::new(Kind::HttpRoute, "web", "r")];
        let resolved = status.parents.values().next().unwrap().conditions[RESOLVED_REFS].reason;
        let edge = gateway(&compiled, "web", "edge");
        (forwards(&edge.listeners[0].routes.last().unwrap().routes.rules[0]), resolved)
    };
    let yaml = application("shop", "cart")
        + EDGE.split("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute").next().unwrap()
        + route;
    assert_eq!(forwards_to(yaml.clone()), (vec!["500 1".to_owned()], "RefNotPermitted"));
    assert_eq!(forwards_to(yaml + grant), (vec!["cart:80 1".to_owned()], "ResolvedRefs"));
}

#[test]
fn beside_a_live_istio_nothing_is_said_of_its_classes_its_gateways_and_their_routes() {
    let class = |name: &str, controller: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\n\
             spec: {{controllerName: {controller}/gateway-controller}}\n"
        )
    };
    let statuses = |classes: &str, name: &str, istio_classes: bool| -> Vec<String> {
        let edge = EDGE.replace("gatewayClassName: leno", &format!("gatewayClassName: {name}"));
        let settings = MeshSettings { istio_classes, ..MeshSettings::default() };
        let compiled = compile(&World::of(objects(&(classes.to_owned() + &edge))), &settings, &[]);
        let said = compiled.statuses.iter().filter(|(_, status)| **status != crate::ObjectStatus::default());
        said.map(|(key, _)| format!("{} {}", key.kind.info().name, key.name)).collect()
    };
    let all = ["GatewayClass istio", "Gateway edge", "HTTPRoute any", "HTTPRoute cart", "HTTPRoute lost"];
    assert_eq!(statuses(&class("istio", "istio.io"), "istio", true), all);
    assert!(statuses(&class("istio", "istio.io"), "istio", false).is_empty());
    assert!(statuses("", "unwritten", false).is_empty(), "it may be anybody's");
    let ours = statuses(&class("leno", "leno.dev"), "leno", false);
    assert!(
        ours.contains(&"Gateway edge".to_owned()) && ours.contains(&"HTTPRoute cart".to_owned()),
        "{ours:?}"
    );
}
