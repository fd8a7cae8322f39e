//! What is read, what is wrong with it, and what the API says of both.

use leno_sources::Overlay;
use serde_json::json;

use crate::rig::{MANIFESTS, Mesh, names};

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_last_good_one_and_shows_where_it_is_broken() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 51);
    cluster.start().await;
    let file = cluster.manifest("mesh.yaml");
    std::fs::write(&file, MANIFESTS.replace("port: 80, targetPort", "port: eighty, targetPort")).unwrap();
    let status =
        cluster.api_until("/v1/status", |it| it["kept"].as_array().is_some_and(|it| !it.is_empty())).await;
    let kept = &status["kept"][0];
    assert_eq!(kept["object"]["name"], "cart");
    assert_eq!(kept["because"][0]["at"]["file"], json!(file));
    assert_eq!(kept["because"][0]["at"]["line"], 5);
    assert!(status["diagnostics"]["error"].as_u64().unwrap() > 0);
    let cart = cluster.api("/v1/objects?kind=Service&name=cart").await;
    assert_eq!(cart["objects"][0]["kept"], true);
    assert_eq!(cart["objects"][0]["refused"], false);
    let services = cluster.api("/v1/services").await;
    assert_eq!(services["services"].as_array().unwrap().len(), 3, "nothing is gone");

    std::fs::write(&file, MANIFESTS).unwrap();
    cluster.api_until("/v1/status", |it| it["kept"].as_array().is_some_and(Vec::is_empty)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_supervisor_adds_is_in_force() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 52);
    let overlay = cluster.folder.path().join("overlay.json");
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
";
    std::fs::write(cluster.manifest("web.yaml"), text).unwrap();
    let services =
        std::collections::BTreeMap::from([("shop/web".to_owned(), "240.240.0.7".parse().unwrap())]);
    let mut added = Overlay { services, pods: Vec::new() };
    added.write(&overlay).unwrap();
    cluster.config.overlay = Some(overlay.clone());
    cluster.start().await;
    let of_web = "/v1/resources?kind=Index&name=shop/web.shop.svc.cluster.local";
    let index = cluster.api(of_web).await;
    assert_eq!(index["resources"][0]["resource"]["index"]["addresses"], json!(["240.240.0.7"]));

    let mut cart = cluster.cart(&mesh).await;
    cart.subscribe("scope/shop/shop/web.shop.svc.cluster.local").await;
    added.pods.push(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web", "security.istio.io/tlsMode": "istio"}},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"podIP": "127.52.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }));
    added.write(&overlay).unwrap();
    let is_up = |has: &[leno_model::Resource]| {
        has.iter().any(|it| matches!(it, leno_model::Resource::Endpoints(set) if set.endpoints.len() == 1))
    };
    let has = cart.until(is_up).await;
    assert!(!names(&has).contains(&"Workload shop/web-0".to_owned()), "another workload's own configuration");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_every_route_and_never_shows_a_key() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 53);
    cluster.start().await;
    for route in [
        "healthz",
        "readyz",
        "v1/proxies",
        "v1/diagnostics",
        "v1/objects",
        "v1/resources",
        "v1/services",
        "v1/gateways",
        "v1/peers",
        "v1/world",
    ] {
        let said = cluster.api(&format!("/{route}")).await;
        assert!(said.get("error").is_none(), "{route}: {said}");
    }
    assert!(cluster.api("/v1/nothing").await["error"].is_string());
    let world = cluster.api("/v1/world").await;
    let resources: Vec<leno_model::Resource> = serde_json::from_value(world["resources"].clone()).unwrap();
    assert!(!resources.is_empty(), "the CLI reads them back");
    cluster.stop().await;
}
