//! Who gets which certificate, and what it is good for.

use leno_identity::{KeyPair, WorkloadCertificate};
use tonic::Code;

use crate::rig::{Mesh, now};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_and_the_certificate_renews_itself_with_its_own_identity() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 41);
    cluster.start().await;
    let cart = mesh.identity("shop", "default");
    cluster.token("one", "shop/cart-0", cart.clone());
    let store = cluster.join("one").await.unwrap();
    assert_eq!(store.certificate().unwrap().spiffe_id(), &cart);
    assert_eq!(cluster.join("one").await.unwrap_err().code(), Code::PermissionDenied);

    let key = KeyPair::generate().unwrap();
    let renewed = cluster.issue(&store, &key, "", 20).await.unwrap();
    let chain = renewed.chain_der.iter().map(|der| der.to_vec());
    let renewed = WorkloadCertificate::from_der(chain, key).unwrap();
    assert_eq!(renewed.spiffe_id(), &cart);
    let left = renewed.not_after().as_secs() - now().as_secs();
    assert!(left <= 20, "{left}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_without_proof_or_with_a_token_for_another_identity() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 42);
    cluster.start().await;
    cluster.token("other", "shop/cart-0", mesh.identity("shop", "admin"));
    let refused = cluster.join("other").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("sa/admin"), "{refused}");
    assert_eq!(cluster.join("guess").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(cluster.join("").await.unwrap_err().code(), Code::Unauthenticated);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_claims_another_workload_or_a_control_plane_is_refused() {
    let mesh = Mesh::new();
    let mut cluster = mesh.cluster("west", 43);
    cluster.start().await;
    cluster.token("stock", "depot/stock-0", mesh.identity("depot", "default"));
    let store = cluster.join("stock").await.unwrap();
    let refusal = cluster.connect("shop/cart-0", store.clone()).refusal().await;
    assert!(refusal.contains("shop/cart-0 is spiffe://cluster.local/ns/shop/sa/default"), "{refusal}");
    let refusal = cluster.connect("control/west", store).refusal().await;
    assert!(refusal.contains("is not a control plane"), "{refusal}");
    assert_eq!(cluster.api("/v1/status").await["rollout"]["connected"], 0);
    cluster.stop().await;
}
