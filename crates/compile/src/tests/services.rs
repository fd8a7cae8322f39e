//! Services, endpoints and workloads.

use leno_model::{ClientTls, EndpointState, Exposure, MtlsMode, Protocol, Tunnel};

use super::*;
use crate::{ExportedService, RemoteCluster};

#[test]
fn a_service_has_its_index_entry_destination_and_endpoints() {
    let compiled = compiled(&application("shop", "cart"));
    let id = service("shop", "cart");
    let entry = compiled.index_entry(&id).unwrap();
    assert_eq!(entry.addresses, ["10.96.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!((entry.ports[0].port, entry.ports[0].protocol), (80, Protocol::Http1));
    let set = endpoints(&compiled, &id);
    let [endpoint] = set.endpoints.as_slice() else { panic!("{set:?}") };
    assert_eq!(endpoint.ports[&80], 8080);
    assert_eq!(endpoint.tunnel, Tunnel::Mesh);
    assert_eq!(endpoint.state, EndpointState::Ready);
    let identity = "spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(endpoint.identity.as_ref().unwrap().as_str(), identity);
    assert_eq!(destination(&compiled, &id, None).identities[0].as_str(), identity);
}

#[test]
fn a_service_that_is_not_exported_to_a_namespace_has_no_closure_there() {
    let yaml = application("shop", "cart").replacen(
        "metadata: {name: cart, namespace: shop}",
        "metadata: {name: cart, namespace: shop, annotations: {networking.istio.io/exportTo: .}}",
        1,
    );
    let compiled = compiled(&yaml);
    let id = service("shop", "cart");
    assert_eq!(compiled.index_entry(&id).unwrap().exposure, Exposure::Only(vec!["shop".into()]));
    assert!(compiled.closure(&"shop".into(), &id).is_some());
    assert!(compiled.closure(&"web".into(), &id).is_none());
    assert!(compiled.exports.is_empty());
}

#[test]
fn a_pod_that_an_entry_selects_knows_that_it_serves_the_entry() {
    let yaml = application("shop", "cart")
        + "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: inside, namespace: shop}
spec:
  hosts: [inside.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 90, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {app: cart}}
";
    let compiled = compiled(&yaml);
    let workload = workload(&compiled, "shop", "cart-0");
    let port = workload.ports.iter().find(|port| port.port == 8080).unwrap();
    let services: Vec<_> = port.services.iter().map(|it| (it.service.host.as_str(), it.port)).collect();
    assert_eq!(services, [("cart.shop.svc.cluster.local", 80), ("inside.example.com", 90)]);
}

#[test]
fn an_endpoint_slice_says_more_than_the_pods_and_a_terminating_endpoint_drains() {
    let yaml = application("shop", "cart")
        + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 9090}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}, targetRef: {kind: Pod, name: cart-0, namespace: shop}}
- {addresses: [10.9.9.9], zone: z1}
";
    let compiled = compiled(&yaml);
    let set = endpoints(&compiled, &service("shop", "cart"));
    let [by_hand, pod] = set.endpoints.as_slice() else { panic!("{set:?}") };
    assert_eq!((pod.state, pod.ports[&80], &pod.tunnel), (EndpointState::Draining, 9090, &Tunnel::Mesh));
    assert_eq!(
        (by_hand.state, &by_hand.tunnel, &*by_hand.locality.zone),
        (EndpointState::Ready, &Tunnel::Plain, "z1")
    );
}

#[test]
fn a_headless_service_is_found_by_the_addresses_of_its_pods() {
    let compiled = compiled(&application("shop", "db").replace("clusterIP: 10.96.0.1", "clusterIP: None"));
    let entry = compiled.index_entry(&service("shop", "db")).unwrap();
    assert_eq!(entry.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn external_services_are_resolved_by_name() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example.com], ports: [{number: 443, name: https, protocol: HTTPS, targetPort: 8443}], resolution: DNS}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com, ports: [{name: tcp, port: 5432}]}
";
    let compiled = compiled(yaml);
    let api = ServiceId { namespace: "shop".into(), host: "api.example.com".into() };
    assert!(compiled.index_entry(&api).unwrap().external);
    let set = endpoints(&compiled, &api);
    assert_eq!(set.endpoints[0].tunnel, Tunnel::Dns { host: "api.example.com".into() });
    assert_eq!(set.endpoints[0].ports[&443], 8443);
    let alias = endpoints(&compiled, &service("shop", "alias"));
    assert_eq!(alias.endpoints[0].tunnel, Tunnel::Dns { host: "db.example.com".into() });
}

#[test]
fn a_workload_has_the_ports_of_its_services_and_its_canonical_name() {
    let compiled = compiled(&application("shop", "cart"));
    let cart = workload(&compiled, "shop", "cart-0");
    assert_eq!((&*cart.canonical_name, &*cart.canonical_revision), ("cart", "v1"));
    let [port] = cart.ports.as_slice() else { panic!("{:?}", cart.ports) };
    assert_eq!((port.port, port.protocol, port.mtls), (8080, Protocol::Http1, MtlsMode::Permissive));
    assert_eq!((&port.services[0].service, port.services[0].port), (&service("shop", "cart"), 80));
}

#[test]
fn the_closest_peer_authentication_wins_and_unset_inherits() {
    let yaml = application("shop", "cart")
        + "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: UNSET}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: cart, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, portLevelMtls: {8080: {mode: DISABLE}}}
";
    let compiled = compiled(&yaml);
    let cart = workload(&compiled, "shop", "cart-0");
    assert_eq!((cart.mtls, &*cart.mtls_origin.namespace), (MtlsMode::Strict, "istio-system"));
    assert_eq!((cart.ports[0].mtls, &*cart.ports[0].mtls_origin.name), (MtlsMode::Disable, "cart"));
}

#[test]
fn the_oldest_peer_authentication_of_a_rank_wins() {
    let one = |name: &str, created: &str, mode: &str| {
        format!(
            "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: shop, creationTimestamp: '{created}'}}
spec: {{mtls: {{mode: {mode}}}}}
"
        )
    };
    let yaml = application("shop", "cart")
        + &one("a", "2026-02-01T00:00:00Z", "DISABLE")
        + &one("z", "2026-01-01T00:00:00Z", "STRICT");
    let compiled = compiled(&yaml);
    assert_eq!(workload(&compiled, "shop", "cart-0").mtls, MtlsMode::Strict);
    assert_eq!(codes(&compiled), [crate::codes::CONFLICT]);
}

#[test]
fn pods_of_machines_that_nobody_hears_of_take_work_when_nobody_else_does() {
    const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: far}, ports: [{name: http, port: 80}]}
";
    let pod = |number: u8, ready: &str, containers: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: far-{number}, namespace: shop, labels: {{app: far}}}}
spec: {{containers: [{{name: app, image: x}}]}}
status:
  phase: Running
  podIP: 10.1.0.{number}
  conditions: [{{type: Ready, status: '{ready}'}}, {{type: ContainersReady, status: '{containers}'}}]
"
        )
    };
    let states = |yaml: &str| {
        let set = endpoints(&compiled(&format!("{SERVICE}{yaml}")), &service("shop", "far"));
        set.endpoints.iter().map(|endpoint| endpoint.state).collect::<Vec<_>>()
    };
    use EndpointState::{NotReady, Ready};
    let (well, cut_off, unwell) = (pod(1, "True", "True"), pod(2, "False", "True"), pod(3, "False", "False"));
    assert_eq!(states(&(well + &cut_off)), [Ready, NotReady], "one machine is lost, others are there");
    assert_eq!(states(&(cut_off.clone() + &unwell)), [Ready, NotReady]);
    let gated =
        cut_off.replace("image: x}]", "image: x}], readinessGates: [{conditionType: example.com/lb}]");
    assert_eq!(states(&gated), [NotReady], "somebody else decides about it");
}

#[test]
fn endpoints_of_another_network_are_reached_through_its_gateway() {
    let world = World::of(objects(&application("shop", "cart")));
    let elsewhere = MeshSettings { cluster: "east".into(), network: "n2".into(), ..MeshSettings::default() };
    let exports: Vec<ExportedService> = compile(&world, &elsewhere, &[]).exports;
    assert_eq!(exports.len(), 1);
    let gateway = ("192.0.2.7".parse().unwrap(), 15443);
    let remote = RemoteCluster {
        cluster: "east".into(),
        network: "n2".into(),
        gateways: vec![gateway],
        stale: true,
        exports,
    };
    let compiled = compile(&world, &MeshSettings::default(), std::slice::from_ref(&remote));
    let set = endpoints(&compiled, &service("shop", "cart"));
    let [east, local] = set.endpoints.as_slice() else { panic!("{set:?}") };
    assert_eq!(east.tunnel, Tunnel::Gateway { address: gateway.0, port: gateway.1 });
    assert_eq!(local.tunnel, Tunnel::Mesh);
    assert_eq!(set.stale, ["east".into()]);
    // What another cluster told us is not told on.
    assert_eq!(compiled.exports[0].endpoints.len(), 1);
    // A service that only another cluster has is a service here.
    let only_there = compile(&World::default(), &MeshSettings::default(), std::slice::from_ref(&remote));
    assert!(only_there.closure(&"web".into(), &service("shop", "cart")).is_some());
    let mut compiler = crate::Compiler::new(World::default(), MeshSettings::default(), Vec::new());
    compiler.update_remotes(vec![remote]);
    assert_eq!(compiler.compiled(), &only_there);
    compiler.update_remotes(Vec::new());
    assert_eq!(compiler.compiled(), &Compiled::default());
}

#[test]
fn what_means_another_thing_in_each_cluster_is_not_told() {
    let exported = |namespace: &str| {
        let compiled = compiled(&application(namespace, "cart"));
        compiled.exports.iter().map(|it| it.service.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(exported("shop"), ["shop/cart.shop.svc.cluster.local"]);
    for own in ["kube-system", "leno-system"] {
        assert!(exported(own).is_empty(), "{own}");
    }
}

#[test]
fn a_backend_tls_policy_that_cannot_be_honoured_still_asks_for_tls() {
    let yaml = application("shop", "cart")
        + "---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  validation: {hostname: cart.example.com, wellKnownCACertificates: System}
";
    let tls = |yaml: &str| {
        let compiled = compile(&World::of(partly_refused(yaml)), &MeshSettings::default(), &[]);
        destination(&compiled, &service("shop", "cart"), None).policy.tls.clone()
    };
    let simple =
        |sni: &str| ClientTls::Simple { sni: sni.into(), subject_alt_names: vec![], insecure: false };
    assert_eq!(tls(&yaml), simple("cart.example.com"));
    assert_eq!(tls(&yaml.replace("System", "Mine")), simple("refused.invalid"));
}

#[test]
fn a_workload_that_takes_plaintext_only_is_called_in_plaintext() {
    let mode = |mode: &str| {
        let yaml = application("shop", "cart")
            + &format!(
                "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"
            );
        endpoints(&compiled(&yaml), &service("shop", "cart")).endpoints[0].tunnel.clone()
    };
    assert_eq!(mode("DISABLE"), Tunnel::Plain);
    assert_eq!(mode("PERMISSIVE"), Tunnel::Mesh);
}

#[test]
fn an_object_that_was_refused_as_a_whole_says_so_in_its_status() {
    let yaml = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: f, namespace: shop}
spec: {}
";
    let compiled = compile(&World::of(partly_refused(yaml)), &MeshSettings::default(), &[]);
    let status = &compiled.statuses[&crate::ObjectKey::new(Kind::EnvoyFilter, "shop", "f")];
    assert!(!status.conditions[crate::status::ACCEPTED].status);
}
