//! Incremental compilation equals full compilation, whatever the changes and their order.

use proptest::prelude::*;

use super::*;
use crate::{Change, Compiler, ObjectKey};

/// Objects that refer to each other, several of them with one key but other content.
fn pool() -> Vec<Arc<AnyObject>> {
    let mut yaml = String::new();
    for namespace in ["a", "b"] {
        for name in ["x", "y"] {
            yaml.push_str(&application(namespace, name));
        }
        yaml.push_str(&rules(namespace));
    }
    yaml.push_str(&mesh_wide());
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
    pool
}

fn rules(namespace: &str) -> String {
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

fn mesh_wide() -> String {
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

#[derive(Clone, Debug)]
struct Step {
    object: usize,
    present: bool,
}

fn step(pool: usize) -> impl Strategy<Value = Step> {
    (0..pool, prop::bool::weighted(0.7)).prop_map(|(object, present)| Step { object, present })
}

fn change(pool: &[Arc<AnyObject>], step: &Step) -> Change {
    let object = pool[step.object].clone();
    Change { key: ObjectKey::of(&object), object: step.present.then_some(object) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn incremental_equals_full(
        start in prop::collection::btree_set(0..pool().len(), 0..pool().len()),
        batches in prop::collection::vec(prop::collection::vec(step(pool().len()), 1..4), 1..10),
    ) {
        let pool = pool();
        let settings = MeshSettings::default();
        let mut world = World::of(start.into_iter().map(|index| pool[index].clone()));
        let mut compiler = Compiler::new(world.clone(), settings.clone(), Vec::new());
        for batch in &batches {
            let before = compiler.compiled().clone();
            let changes: Vec<Change> = batch.iter().map(|step| change(&pool, step)).collect();
            changes.iter().for_each(|change| { world.apply(change); });
            let delta = compiler.update(&changes);
            let full = compile(&world, &settings, &[]);
            prop_assert_eq!(compiler.compiled(), &full);
            let mut resources = before.resources;
            resources.retain(|key, _| !delta.removed.contains(key));
            resources.extend(delta.changed);
            prop_assert_eq!(resources, full.resources);
        }
    }
}

#[test]
fn a_change_of_one_pod_recomputes_only_what_reads_it() {
    let yaml: String = (0..50).map(|nth| application("a", &format!("s{nth}"))).collect();
    let all = objects(&yaml);
    let pod = all.iter().find(|object| object.kind() == Kind::Pod).unwrap().clone();
    let mut compiler = Compiler::new(World::of(all), MeshSettings::default(), Vec::new());
    let AnyObject::Pod(pod) = pod.as_ref() else { unreachable!() };
    let mut changed = pod.clone();
    changed.spec.status.ready = false;
    let delta = compiler.update(&[Change::put(Arc::new(AnyObject::Pod(changed)))]);
    assert!(delta.recomputed <= 4, "{}", delta.recomputed);
    assert_eq!(delta.changed.len(), 1, "{:?}", delta.changed.keys());
}

#[test]
fn two_hundred_services_compile_and_one_route_s_change_costs_a_few_units() {
    let mut yaml: String =
        (0..200).map(|nth| application(&format!("n{}", nth % 10), &format!("s{nth}"))).collect();
    yaml.push_str(&rules("a"));
    yaml.push_str(&mesh_wide());
    let all = objects(&yaml);
    let route = all.iter().find(|object| object.kind() == Kind::HttpRoute).unwrap().clone();
    let mut compiler = Compiler::new(World::of(all), MeshSettings::default(), Vec::new());
    let delta = compiler.update(&[Change::delete(ObjectKey::of(&route))]);
    assert!(delta.recomputed <= 6, "{}", delta.recomputed);
}
