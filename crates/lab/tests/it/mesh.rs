//! Whole meshes in this process: real control planes, proxies and stand-ins from a manifest.

use std::fs;

use leno_lab::mesh::{Mesh, MeshRecord, api};
use tokio::time::Instant;

use crate::yard::{PATIENCE, SHOP, Yard, eventually, front_page};

const DENY_WEB: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-web, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_walks_from_the_gateway_through_the_mesh() {
    let yard = Yard::new(&[("shop.yaml", SHOP)]);
    let mesh = yard.start(&["local"]).await;
    let answer = front_page(&mesh, "local").await.unwrap();
    assert_eq!(answer["service_account"], "web");
    let call = &answer["calls"][0];
    assert_eq!(call["status"], "200", "{answer}");
    assert!(call["workload"].as_str().unwrap().starts_with("cart-"), "{answer}");
    let seen = answer["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    assert!(
        seen.contains("spiffe://cluster.local/ns/shop/sa/edge-istio"),
        "the gateway's identity: {answer}"
    );
    mesh.stop().await;
    yard.is_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_in_force_and_a_broken_one_is_refused_with_its_line() {
    let yard = Yard::new(&[("shop.yaml", SHOP)]);
    let mesh = yard.start(&["local"]).await;
    assert_eq!(cart_status(&mesh).await, "200");

    fs::write(yard.manifests().join("deny.yaml"), DENY_WEB).unwrap();
    eventually("the policy denies", async || cart_status(&mesh).await == "403").await;

    let shop = yard.manifests().join("shop.yaml");
    fs::write(&shop, SHOP.replace("replicas: 2", "replicas: many")).unwrap();
    let line = SHOP.lines().position(|line| line.contains("replicas: 2")).unwrap() + 1;
    let control = mesh.record().clusters[0].api;
    eventually("the refusal is shown", async || {
        let status = api::get_json(control, "/v1/status").await.unwrap();
        status["kept"][0]["because"][0]["at"]["line"] == line
    })
    .await;
    assert_eq!(cart_status(&mesh).await, "403", "the last good form stays in force");
    fs::write(&shop, SHOP).unwrap();

    fs::remove_file(yard.manifests().join("deny.yaml")).unwrap();
    eventually("the policy is gone", async || cart_status(&mesh).await == "200").await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_deployment_starts_and_drains_replicas_without_a_failed_request() {
    let yard = Yard::new(&[("shop.yaml", SHOP)]);
    let mesh = yard.start(&["local"]).await;
    let carts =
        |record: &MeshRecord| record.clusters[0].workloads.iter().filter(|it| it.owner == "cart").count();
    for replicas in [3, 1] {
        let text = SHOP.replace("replicas: 2", &format!("replicas: {replicas}"));
        fs::write(yard.manifests().join("shop.yaml"), text).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let scaled = |record: &MeshRecord| {
            carts(record) == replicas
                && record.clusters[0].workloads.iter().all(|it| it.ready && !it.terminating)
        };
        while !scaled(&mesh.record()) {
            assert!(
                Instant::now() < deadline,
                "not {replicas} replicas: {:?}",
                mesh.record().clusters[0].workloads
            );
            assert_eq!(cart_status(&mesh).await, "200");
        }
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cluster_is_taken_over_by_another_network_and_comes_back() {
    let yard = Yard::new(&[("shop.yaml", SHOP)]);
    let mesh = yard.start(&["west", "east"]).await;
    eventually("the clusters know of each other", async || carts(&mesh, 4).await).await;
    // The front page of west is asked; its carts go, and east's, behind a gateway, take over.
    assert_eq!(mesh.stop_workload("west", "shop/cart").await.unwrap(), 2);
    eventually("west's carts are gone", async || {
        mesh.record().clusters[0].workloads.iter().all(|it| it.owner != "cart")
    })
    .await;
    for _ in 0..20 {
        let answer = front_page(&mesh, "west").await.unwrap();
        assert_eq!(answer["calls"][0]["status"], "200", "{answer}");
    }
    mesh.start_workload("west", "shop/cart").await.unwrap();
    mesh.ready(PATIENCE).await.unwrap();
    eventually("every proxy of west knows its carts", async || carts(&mesh, 4).await).await;

    mesh.kill_cluster("east").await.unwrap();
    let answer = front_page(&mesh, "west").await.unwrap();
    assert_eq!(answer["calls"][0]["status"], "200", "{answer}");
    mesh.restore_cluster("east").await.unwrap();
    mesh.ready(PATIENCE).await.unwrap();
    eventually("east serves again", async || {
        front_page(&mesh, "east").await.is_some_and(|answer| answer["calls"][0]["status"] == "200")
    })
    .await;
    mesh.stop().await;
}

const SECOND_VERSION: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart-v2, namespace: shop}
spec:
  selector: {matchLabels: {app: cart, version: v2}}
  template:
    metadata: {labels: {app: cart, version: v2}}
    spec:
      serviceAccountName: cart
      containers: [{name: app, image: cart, ports: [{containerPort: 8080}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart, subset: v2}}]}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_subset_is_kept_through_the_gateway_of_another_network() {
    let yard = Yard::new(&[("shop.yaml", SHOP), ("second.yaml", SECOND_VERSION)]);
    let mesh = yard.start(&["west", "east"]).await;
    eventually("the clusters know of each other", async || carts(&mesh, 6).await).await;
    assert_eq!(mesh.stop_workload("west", "shop/cart-v2").await.unwrap(), 1);
    eventually("west's second version is gone", async || carts(&mesh, 5).await).await;
    // East has three carts behind its gateway, of which one is of the second version.
    for _ in 0..20 {
        let answer = front_page(&mesh, "west").await.unwrap();
        let call = &answer["calls"][0];
        assert_eq!(call["status"], "200", "{answer}");
        assert!(call["workload"].as_str().unwrap().starts_with("cart-v2-"), "{answer}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_control_plane_a_mesh_serves_and_afterwards_it_changes_again() {
    let yard = Yard::new(&[("shop.yaml", SHOP)]);
    let mesh = yard.start(&["local"]).await;
    assert_eq!(cart_status(&mesh).await, "200");
    mesh.kill_control("local").await.unwrap();
    for _ in 0..20 {
        assert_eq!(cart_status(&mesh).await, "200");
    }
    fs::write(yard.manifests().join("deny.yaml"), DENY_WEB).unwrap();
    mesh.restore_control("local").await.unwrap();
    eventually("the policy denies", async || cart_status(&mesh).await == "403").await;
    mesh.stop().await;
}

/// Whether every proxy of the first cluster knows so many carts, of all clusters.
async fn carts(mesh: &Mesh, count: u64) -> bool {
    let control = mesh.record().clusters[0].api;
    let services = api::get_json(control, "/v1/services").await.unwrap();
    let all = services["services"].as_array().unwrap().iter();
    let known = all.clone().any(|it| it["name"] == "cart" && it["endpoints"]["ready"] == count);
    let rollout = api::get_json(control, "/v1/status").await.unwrap()["rollout"].take();
    known && rollout["acknowledged"] == rollout["expected"]
}

async fn cart_status(mesh: &Mesh) -> String {
    let answer = front_page(mesh, "local").await.expect("the front page answers");
    answer["calls"][0]["status"].as_str().unwrap_or_default().to_owned()
}
