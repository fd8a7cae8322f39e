//! What a gateway's clients are told of failures within the mesh: that there is one, and nothing that is the mesh's own.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use tokio::io::AsyncReadExt as _;

use crate::rig::{EDGE, Rig, app_address, ask, proxy_address, until};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge-9}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 7080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge-9}]
  rules:
  - {backendRefs: [{name: web, port: 80}]}
  - {matches: [{path: {value: /nowhere}}], backendRefs: [{name: secret-name, port: 80}]}
---
";

/// The whole answer of the gateway.
async fn answer(path: &'static str) -> String {
    let ask = move || {
        let mut stream = TcpStream::connect((proxy_address(EDGE), 7080)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

/// Addresses and identities of the tests' mesh, and what proxies say to each other.
fn assert_nothing_of_the_mesh(answer: &str) {
    for told in ["127.", "spiffe", "15008", "secret-name", "svc.cluster.local", "x-leno"] {
        assert!(!answer.to_lowercase().contains(told), "{told}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_gateway_are_told_of_a_failure_in_general_words() {
    let rig = Rig::start(GATEWAY, 1).await;
    let _edge = rig.proxy(EDGE).await;
    until("the gateway serves", async || answer("/").await.starts_with("HTTP/1.1 503")).await;
    let unreachable = answer("/").await;
    assert!(unreachable.contains("the service cannot be reached"), "{unreachable}");
    assert_nothing_of_the_mesh(&unreachable);

    let nowhere = answer("/nowhere").await;
    assert!(nowhere.starts_with("HTTP/1.1 500") && nowhere.contains("the route has no backend"), "{nowhere}");
    assert_nothing_of_the_mesh(&nowhere);

    // The server's proxy is there, and the application is not: what the peer says of it stays in the mesh.
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let away = async || answer("/").await.contains("the service is not available");
    until("the server's proxy answers", away).await;
    assert_nothing_of_the_mesh(&answer("/").await);
    let inside = ask("GET", "/", "").await;
    assert!(inside.contains("the application does not answer on port"), "callers inside are told: {inside}");

    // The same of an application that ends while it is asked.
    let ending = tokio::net::TcpListener::bind((app_address("web-0"), 9080)).await.unwrap();
    let ended = tokio::spawn(async move {
        while let Ok((mut stream, _)) = ending.accept().await {
            let _ = stream.read_u8().await;
        }
    });
    let told = async || ask("GET", "/", "").await.contains("the application closed the connection");
    until("callers inside are told", told).await;
    let broken = answer("/").await;
    assert!(broken.starts_with("HTTP/1.1 503") && !broken.contains("application"), "{broken}");
    assert_nothing_of_the_mesh(&broken);
    ended.abort();
}
