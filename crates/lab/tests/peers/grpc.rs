//! A gRPC client of another language.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    mesh::{HOST, Peers, page},
    programs::{python_with, shown, succeeds},
};

#[test]
fn a_python_client_makes_every_kind_of_call() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let seen = calls(&client.address("GRPC_ADDR").to_string());
    assert_eq!(
        seen["services"],
        json!(["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "leno.standin.v1.Echo"])
    );
    assert_eq!(seen["unary"], json!({"message": "hello", "app": "web", "code": "OK", "tag": "a,b"}));
    assert!(seen["peer"].as_str().unwrap().contains("/ns/peers/sa/client"), "{seen}");
    assert_eq!(seen["server_stream"], true);
    assert_eq!(seen["client_stream"], json!({"count": 20, "whole": true}));
    assert_eq!(seen["bidi"], true);
    assert_eq!(seen["deadline"]["code"], "DEADLINE_EXCEEDED");
    assert_eq!(seen["deadline_in_time"], true);
    assert_eq!(seen["trailers_only"], json!({"code": "FAILED_PRECONDITION", "details": "as asked"}));
    assert_eq!(seen["status_after_messages"]["code"], "ABORTED");
    assert_eq!(seen["unknown"]["code"], "UNIMPLEMENTED");
    assert_eq!(seen["health"], "SERVING");

    // The proxies saw gRPC, with its messages and statuses.
    let metrics = page(peers.workload("client").admin.unwrap(), "/stats/prometheus");
    let counted = |status: &str| {
        let of = format!("grpc_response_status=\"{status}\"");
        metrics.lines().any(|line| {
            line.starts_with("istio_requests_total{")
                && line.contains(&of)
                && line.contains("request_protocol=\"grpc\"")
        })
    };
    assert!(counted("0") && counted("9") && counted("10"), "{metrics}");
    let messages = metrics.lines().filter(|line| line.starts_with("istio_response_messages_total{"));
    let messages: f64 = messages.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!(messages >= 550.0, "500 of a stream and 50 of another at least: {messages}");
}

#[test]
fn grpc_passes_a_gateway() {
    let peers = Peers::start(&[]);
    let seen = calls(&peers.edge("http").to_string());
    assert_eq!(seen["unary"]["message"], "hello", "{HOST}: {seen}");
    assert_eq!(seen["bidi"], true);
    assert_eq!(seen["trailers_only"]["code"], "FAILED_PRECONDITION");
    assert!(seen["peer"].as_str().unwrap().contains("/ns/peers/sa/edge"), "{seen}");
}

fn calls(address: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpc_client.py");
    let mut python = Command::new(python_with("grpc, grpc_health, grpc_reflection"));
    python.args([script, address]).env_remove("http_proxy").env("GRPC_ENABLE_FORK_SUPPORT", "0");
    let output = succeeds(&mut python);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)))
}
