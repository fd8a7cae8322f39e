//! What a gateway is given, and nobody else.

use leno_model::Resource;

use crate::rig::{Mesh, names};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_certificate_goes_to_that_gateway_only_and_the_api_hides_its_key() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 71);
    std::fs::write(cluster.manifest("gateway.yaml"), manifests()).unwrap();
    cluster.start().await;
    let gateways = cluster.api("/v1/gateways").await;
    let identity = gateways["gateways"][0]["identity"].as_str().unwrap();
    assert_eq!(gateways["gateways"][0]["ports"][0], 443);
    cluster.token("edge", "shop/edge", identity.parse().unwrap());
    let store = cluster.join("edge").await.unwrap();
    let is_secret = |it: &Resource| matches!(it, Resource::Secret(_));
    let mut edge = cluster.connect("shop/edge", store);
    let has = edge.until(|has| has.iter().any(is_secret)).await;
    assert!(names(&has).contains(&"Gateway shop/edge".to_owned()), "{:?}", names(&has));

    let mut cart = cluster.cart(&mesh).await;
    let has = cart.until(|has| has.len() >= 3).await;
    assert!(!has.iter().any(is_secret), "{:?}", names(&has));
    let shown = cluster.api("/v1/resources?kind=Secret").await;
    assert_eq!(shown["resources"][0]["resource"]["secret"].as_object().unwrap().len(), 1, "{shown}");
    let world = cluster.api("/v1/world").await.to_string();
    assert!(!world.contains("\"secret\":{\"id\""), "no secret is in it");
    cluster.stop().await;
}

fn manifests() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["shop.example.com".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: edge-tls, namespace: shop}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  gatewayClassName: leno
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    tls: {{certificateRefs: [{{name: edge-tls}}]}}
",
        indented(&certificate.pem()),
        indented(&key.serialize_pem())
    )
}
