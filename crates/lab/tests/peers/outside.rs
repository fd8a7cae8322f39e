//! What comes from outside and claims to come from inside.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;

use crate::{
    mesh::{HOST, Peers},
    programs::{program, succeeds},
};

/// What a client claims, and of which nothing may reach an application.
const CLAIMS: [(&str, &str); 16] = [
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "gopher"),
    ("x-forwarded-host", "forged.example"),
    ("x-forwarded-port", "666"),
    ("x-forwarded-client-cert", "By=spiffe://forged;URI=spiffe://cluster.local/ns/kube-system/sa/admin"),
    ("forwarded", "for=6.6.6.6;proto=gopher"),
    ("x-real-ip", "6.6.6.6"),
    ("x-leno-deadline", "666000"),
    ("x-leno-overhead", "666"),
    ("x-leno-not-delivered", "forged"),
    ("x-envoy-external-address", "6.6.6.6"),
    ("x-envoy-internal", "forged"),
    ("x-envoy-original-path", "/forged"),
    ("x-envoy-max-retries", "66"),
    ("x-envoy-upstream-rq-timeout-ms", "666000"),
    ("x-envoy-peer-metadata", "forged"),
];

#[test]
fn a_gateway_and_a_plaintext_port_believe_nothing() {
    let peers = Peers::start(&[]);
    let web = peers.workload("web");
    let https = format!("https://{HOST}/");
    let connect = format!("{HOST}:443:{}", peers.edge("https"));
    let authority = peers.authority();
    let tls = ["--cacert", authority.to_str().unwrap(), "--connect-to", &connect, &https];
    let edge = format!("http://{}/", peers.edge("http"));
    let plain = format!("http://{}/", SocketAddr::new(web.address, 8080));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let seen = forge(&[version, &edge]);
        nothing_forged(&seen);
        assert_eq!(seen["x-forwarded-for"], "127.0.0.1", "{seen}");
        assert_eq!(seen["x-forwarded-proto"], "http");
        is_only(&seen["x-forwarded-client-cert"], "spiffe://cluster.local/ns/peers/sa/edge-istio");

        let seen = forge(&[version, &plain]);
        nothing_forged(&seen);
        assert_eq!(seen["x-forwarded-for"], "127.0.0.1", "{seen}");
        assert_eq!(seen.get("x-forwarded-client-cert"), None, "who is not known is not named: {seen}");
    }
    for version in ["--http1.1", "--http2"] {
        let seen = forge(&[&[version], &tls[..]].concat());
        nothing_forged(&seen);
        assert_eq!(seen["x-forwarded-proto"], "https");
    }
}

#[test]
fn a_workload_of_the_mesh_cannot_name_another_caller() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let seen = forge(&["--http1.1", &client.url("WEB_ADDR", "/")]);
    is_only(&seen["x-forwarded-client-cert"], "spiffe://cluster.local/ns/peers/sa/client");
    for (name, value) in CLAIMS.iter().filter(|(name, _)| name.starts_with("x-leno-")) {
        assert_ne!(
            seen.get(*name).and_then(Value::as_str),
            Some(*value),
            "{name} is between proxies only: {seen}"
        );
    }
}

#[test]
fn what_proxies_tell_each_other_does_not_leave_the_mesh() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let plain = format!("http://{}/", SocketAddr::new(peers.workload("web").address, 8080));
    for url in [format!("http://{}/", peers.edge("http")), client.url("WEB_ADDR", "/"), plain] {
        let mut curl = Command::new(program("curl"));
        let head = succeeds(curl.args(["-sS", "--noproxy", "*", "-D", "-", "-o", "/dev/null", &url])).stdout;
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        for hop in ["x-leno-overhead", "x-leno-deadline", "x-leno-not-delivered", "x-envoy-peer-metadata"] {
            assert!(!head.contains(hop), "{url}: {head}");
        }
    }
}

/// The headers that the application saw of a request with all claims.
fn forge(arguments: &[&str]) -> Value {
    let mut curl = Command::new(program("curl"));
    curl.args(["-sS", "--noproxy", "*", "-H", "x-leno-echo: true"]);
    for (name, value) in CLAIMS {
        curl.args(["-H", &format!("{name}: {value}")]);
    }
    let output = succeeds(curl.args(arguments));
    let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["request"]["headers"].take()
}

fn nothing_forged(seen: &Value) {
    for (name, value) in CLAIMS {
        assert_ne!(seen.get(name).and_then(Value::as_str), Some(value), "{name} is believed: {seen}");
        let shown = seen.get(name).map(Value::to_string).unwrap_or_default();
        assert!(!shown.contains("6.6.6.6") && !shown.contains("forged"), "{name} is kept in part: {shown}");
    }
}

fn is_only(value: &Value, identity: &str) {
    let text = value.as_str().unwrap();
    assert!(text.contains(&format!("URI={identity}")), "{text}");
    assert!(!text.contains("admin") && text.matches("URI=").count() == 1, "{text}");
}
