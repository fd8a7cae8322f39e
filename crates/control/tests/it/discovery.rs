//! What a proxy is given.

use leno_model::Resource;
use leno_xds::client::ScopeAnswer;

use crate::rig::{Mesh, PROMPT, names, pod};

const STOCK: &str = "scope/shop/depot/stock.depot.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_the_visible_index_its_own_workload_and_the_closure_of_a_scope() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 31);
    cluster.start().await;
    let mut cart = cluster.cart(&mesh).await;
    let first = cart.until(|has| has.len() >= 3).await;
    assert_eq!(
        names(&first),
        [
            "Index depot/stock.depot.svc.cluster.local",
            "Index shop/cart.shop.svc.cluster.local",
            "Workload shop/cart-0",
        ],
        "and not depot/secret, which shop may not see"
    );
    assert_eq!(cart.subscribe(STOCK).await, ScopeAnswer::Loaded);
    let has = names(&cart.until(|has| has.len() > 3).await);
    assert!(has.contains(&"Destination depot/stock.depot.svc.cluster.local".to_owned()), "{has:?}");
    assert!(has.contains(&"Endpoints depot/stock.depot.svc.cluster.local".to_owned()), "{has:?}");
    for scope in [
        "scope/shop/depot/secret.depot.svc.cluster.local",
        "scope/depot/depot/stock.depot.svc.cluster.local",
        "scope/shop/depot/nothing.depot.svc.cluster.local",
        "exports",
        "nonsense",
    ] {
        assert_eq!(cart.subscribe(scope).await, ScopeAnswer::NotFound, "{scope}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_in_force_within_a_second_and_is_acknowledged() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 32);
    cluster.start().await;
    let mut cart = cluster.cart(&mesh).await;
    assert_eq!(cart.subscribe(STOCK).await, ScopeAnswer::Loaded);
    let before = cluster.api("/v1/status").await["generation"].as_u64().unwrap();

    let saved = std::time::Instant::now();
    std::fs::write(cluster.manifest("stock.yaml"), pod("depot", "stock", "stock-0", 33)).unwrap();
    let endpoint = |has: &[Resource]| {
        has.iter().any(|it| matches!(it, Resource::Endpoints(set) if !set.endpoints.is_empty()))
    };
    cart.until(endpoint).await;
    let took = saved.elapsed();
    assert!(took < PROMPT, "{took:?}");

    let status = cluster.api_until("/v1/status", |it| it["rollout"]["acknowledged"] == 1).await;
    assert_eq!(status["generation"].as_u64().unwrap(), before + 1);
    let proxies = status["proxies"].as_array().unwrap();
    let of = |workload: &str| proxies.iter().find(|it| it["workload"] == workload).unwrap();
    assert_eq!(of("shop/cart-0")["lag"], 0);
    assert_eq!(of("depot/stock-0")["connected"], false);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_appears_reaches_routes_that_led_to_it_in_vain() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 34);
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: depot}
spec:
  parentRefs: [{group: '', kind: Service, name: stock}]
  rules: [{backendRefs: [{name: stock-v2, port: 80}]}]
";
    std::fs::write(cluster.manifest("route.yaml"), route).unwrap();
    cluster.start().await;
    let mut cart = cluster.cart(&mesh).await;
    assert_eq!(cart.subscribe(STOCK).await, ScopeAnswer::Loaded);
    let service = "
apiVersion: v1
kind: Service
metadata: {name: stock-v2, namespace: depot}
spec: {clusterIP: 240.240.0.9, selector: {app: stock-v2}, ports: [{name: http, port: 80}]}
";
    std::fs::write(cluster.manifest("v2.yaml"), service).unwrap();
    let backend = "Destination depot/stock-v2.depot.svc.cluster.local".to_owned();
    cart.until(|has| names(has).contains(&backend)).await;
    std::fs::remove_file(cluster.manifest("v2.yaml")).unwrap();
    cart.until(|has| !names(has).contains(&backend)).await;
    cluster.stop().await;
}
