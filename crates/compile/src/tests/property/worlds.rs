//! Objects that refer to each other in every way, and what other clusters may say.

use super::*;

/// Objects that refer to each other, several of them with one key but other content.
pub(super) fn pool() -> Vec<Arc<AnyObject>> {
    let mut yaml = String::new();
    for namespace in ["a", "b"] {
        for name in ["x", "y"] {
            yaml.push_str(&application(namespace, name));
        }
        yaml.push_str(&rules(namespace));
    }
    yaml.push_str(&mesh_wide());
    yaml.push_str(PLACES);
    yaml.push_str(MORE_ROUTES);
    let mut pool = objects(&yaml);
    // Other contents under the same keys.
    let pods: Vec<_> = pool.iter().filter(|object| object.kind() == Kind::Pod).cloned().collect();
    for pod in pods {
        let AnyObject::Pod(pod) = pod.as_ref() else { continue };
        let mut unready = pod.clone();
        unready.spec.status.ready = false;
        unready.metadata.labels.insert("version".to_owned(), "v2".to_owned());
        pool.push(Arc::new(AnyObject::Pod(unready)));
        let mut elsewhere = pod.clone();
        elsewhere.metadata.labels.insert("app".to_owned(), "x".to_owned());
        elsewhere.spec.spec.service_account = "other".to_owned();
        pool.push(Arc::new(AnyObject::Pod(elsewhere)));
    }
    pool.extend(objects(&application("a", "x").replace("port: 80", "port: 81").replace("http,", "tcp,")));
    pool.extend(objects(
        &rules("a").replace("weight: 30", "weight: 0").replace("exportTo: ['*']", "exportTo: ['.']"),
    ));
    pool.extend(objects(&rules("b").replace("host: x.a", "host: y.a").replace("STRICT", "DISABLE")));
    pool.extend(objects(
        &PLACES
            .replace("tier: edge", "tier: inner")
            .replace("region: west", "region: east")
            .replace("controllerName: leno.dev", "controllerName: example.com")
            .replace("mode: STRICT", "mode: PERMISSIVE"),
    ));
    pool.extend(objects(
        &MORE_ROUTES
            .replace("port: 80, weight: 1", "port: 81, weight: 0")
            .replace("service: shop.Cart", "method: Get")
            .replace("app: x", "app: y"),
    ));
    pool.extend(partly_refused(REFUSED).into_iter().filter(|object| object.kind() != Kind::Pod));
    // The same objects with a date: younger than those without one.
    let dated: Vec<_> = pool.iter().filter_map(dated).collect();
    pool.extend(dated);
    pool
}

/// An object of `b` with a date, which changes which of two that say something about one thing wins.
fn dated(object: &Arc<AnyObject>) -> Option<Arc<AnyObject>> {
    let stamp = Some("2020-01-01T00:00:00Z".to_owned());
    macro_rules! stamped {
        ($($kind:ident)*) => {
            match &**object {
                $(AnyObject::$kind(object) if object.namespace() == "b" => {
                    let mut object = object.clone();
                    object.metadata.creation_timestamp = stamp;
                    Some(Arc::new(AnyObject::$kind(object)))
                })*
                _ => None,
            }
        };
    }
    stamped!(VirtualService DestinationRule PeerAuthentication HttpRoute GrpcRoute BackendTlsPolicy ServiceEntry IstioGateway)
}

/// Namespaces, nodes, classes, and pods that are there by themselves.
const PLACES: &str = "---
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {tier: edge}}
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: west, topology.kubernetes.io/zone: z}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: leno}
spec: {controllerName: leno.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: chosen, namespace: b}
spec:
  gatewayClassName: leno
  infrastructure: {labels: {team: b}}
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: '*.example.com', allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {tier: edge}}}}}
  - {name: tcp, port: 90, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
  - {name: tls, port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}, allowedRoutes: {namespaces: {from: All}}}
  - {name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: a}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: on-node, namespace: a, labels: {app: x, version: v2, istio: ingressgateway, security.istio.io/tlsMode: istio}}
spec: {nodeName: n1, serviceAccountName: edge, containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: of-x, namespace: a}
spec: {selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-gateway, namespace: b}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: chosen}, {group: '', kind: Service, name: x}], action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: picked, namespace: a}
spec: {hosts: [picked.example.com], location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {app: x}}}
";

/// The routes of the other kinds, and listeners of other gateways.
const MORE_ROUTES: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: a}
spec:
  parentRefs: [{group: '', kind: Service, name: y, namespace: b}, {name: chosen, namespace: b}]
  hostnames: [grpc.example.com]
  rules:
  - {matches: [{method: {service: shop.Cart}}], backendRefs: [{name: x, port: 80, weight: 1}, {name: y, namespace: b, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: t, namespace: a}
spec: {parentRefs: [{name: chosen, namespace: b, sectionName: tcp}], rules: [{backendRefs: [{name: x, port: 80, weight: 1}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: s, namespace: a}
spec: {parentRefs: [{name: chosen, namespace: b, sectionName: tls}], hostnames: [db.example.com], rules: [{backendRefs: [{name: y, namespace: b, port: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: b}
spec:
  hosts: ['*.example.com']
  gateways: [a/edge, b/edge]
  tls: [{match: [{sniHosts: [db.example.com]}], route: [{destination: {host: y}}]}]
  http: [{match: [{uri: {regex: '/v[0-9]+'}}], route: [{destination: {host: x.a.svc.cluster.local, subset: v-b}}], mirror: {host: y.a.svc.cluster.local}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: entry, namespace: a}
spec: {host: '*.example.com', subsets: [{name: only, labels: {app: x}}], trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}}
";

/// Objects that are refused as a whole, under keys that others have in a good form; and one in part.
const REFUSED: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: a}
spec: {mtls: {mode: SOMETIMES}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: a}
spec: [none]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-gateway, namespace: b}
spec: {selector: {matchLabels: {app: y}}, action: CUSTOM, provider: {name: opa}, rules: [{}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: y, namespace: a}
spec: {parentRefs: 7}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: b}
spec: {listeners: none}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: x, namespace: a}
spec: {hosts: 1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: x, namespace: b}
spec: {subsets: []}
---
apiVersion: v1
kind: Service
metadata: {name: x, namespace: a}
spec: {ports: all}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: l, namespace: b}
spec: {parentRef: {name: gw}, listeners: [{name: more, port: 81, protocol: HTTP}]}
";

/// What other clusters may say: nothing, the same service as here, another one, both with one of them stale.
pub(super) fn remotes() -> Vec<Vec<RemoteCluster>> {
    let exported = |namespace: &str, name: &str| {
        let compiled = compiled(&application(namespace, name));
        let mut export = compiled.exports[0].clone();
        export.endpoints.iter_mut().for_each(|endpoint| endpoint.cluster = "east".into());
        export
    };
    let east = |stale, exports| RemoteCluster {
        cluster: "east".into(),
        network: "".into(),
        gateways: Vec::new(),
        stale,
        exports,
    };
    let north = RemoteCluster {
        cluster: "north".into(),
        network: "other".into(),
        gateways: vec![([127, 0, 0, 9].into(), 15443)],
        stale: false,
        exports: vec![exported("a", "x"), exported("c", "far")],
    };
    vec![
        Vec::new(),
        vec![east(false, vec![exported("a", "x")])],
        vec![east(false, vec![exported("b", "y"), exported("c", "far")])],
        vec![east(true, vec![exported("a", "x")]), north],
    ]
}

pub(super) fn rules(namespace: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: x, namespace: {namespace}}}
spec:
  host: x.a.svc.cluster.local
  exportTo: ['*']
  trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v-{namespace}, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: x, namespace: {namespace}}}
spec:
  hosts: [x.a.svc.cluster.local]
  exportTo: ['*']
  gateways: [mesh, a/edge]
  http:
  - match: [{{uri: {{prefix: /{namespace}}}}}]
    route:
    - {{destination: {{host: x.a.svc.cluster.local, subset: v1}}, weight: 70}}
    - {{destination: {{host: y, subset: v-{namespace}}}, weight: 30}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: {namespace}}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: SIMPLE, credentialName: cert}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: cert, namespace: {namespace}}}
stringData: {{tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: y, namespace: {namespace}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: y, namespace: a}}, {{name: gw, namespace: b}}]
  rules:
  - matches: [{{path: {{value: /api}}}}]
    backendRefs: [{{name: x, namespace: b, port: 80}}, {{name: y, port: 80, weight: 3}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: {namespace}}}
spec:
  gatewayClassName: leno
  listeners: [{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: g, namespace: {namespace}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}}]
  to: [{{group: '', kind: Service}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: p, namespace: {namespace}}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: {namespace}}}
spec: {{selector: {{matchLabels: {{app: x}}}}, rules: [{{from: [{{source: {{namespaces: [b]}}}}]}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: t, namespace: {namespace}}}
spec: {{targetRefs: [{{group: '', kind: Service, name: y}}], validation: {{hostname: y, wellKnownCACertificates: System}}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: y-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: y}}}}
addressType: IPv4
ports: [{{name: http, port: 8081}}]
endpoints: [{{addresses: [10.0.0.9], targetRef: {{kind: Pod, name: y-0, namespace: {namespace}}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e, namespace: {namespace}}}
spec: {{hosts: [api.example.com], ports: [{{number: 443, name: tls, protocol: TLS}}], resolution: DNS}}
"
    )
}

pub(super) fn mesh_wide() -> String {
    "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-all, namespace: leno-system}
spec: {}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: istio-system}
spec: {host: '*.svc.cluster.local', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild, namespace: b}
spec: {hosts: ['*.a.svc.cluster.local'], http: [{route: [{destination: {host: y}}], timeout: 3s}]}
"
    .to_owned()
}
