//! The plugin, the agent and the kernel: pods' network namespaces, made here, that a container runtime would start.
//!
//! They need root. Without it each says so on one line and tests nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod rig;

use std::{fs, os::unix::fs::PermissionsExt as _};

use leno_capture::{arguments, render};
use serde_json::{Value, json};

use crate::rig::{Agent, BRIDGE, Namespace, annotations, call, previous};

/// What a pod gets that asks for nothing.
fn injected() -> Value {
    annotations(json!({}))
}

#[test]
fn a_started_pod_has_the_rules_of_the_init_container_and_the_result_of_the_plugins_before() {
    let Some([pod, other]) = Namespace::two() else { return };
    let agent = Agent::start();
    let asking = annotations(json!({
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/8,fd00::/8",
        "traffic.sidecar.istio.io/includeInboundPorts": "8080,9090",
    }));
    let (printed, well) = call(&agent, "ADD", "shop", &pod, &asking);
    assert!(well, "{printed:?}");
    assert_eq!(printed, Some(previous()));
    // The init container writes these, from the same arguments.
    let plan = arguments::read(asking["leno.dev/capture"].as_str().unwrap()).unwrap();
    other.enter(move || leno_capture::write::write(&render(&plan)).unwrap());
    let rules = pod.rules();
    assert!(
        rules.contains("ip daddr 10.0.0.0/8 return") && rules.contains("dport { 8080, 9090 }"),
        "{rules}"
    );
    assert_eq!(rules, other.rules());
}

#[test]
fn a_check_says_whether_the_rules_are_there() {
    let Some([pod, _]) = Namespace::two() else { return };
    let agent = Agent::start();
    assert!(!call(&agent, "CHECK", "shop", &pod, &injected()).1);
    assert!(call(&agent, "ADD", "shop", &pod, &injected()).1);
    assert_eq!(call(&agent, "CHECK", "shop", &pod, &injected()), (None, true));
    assert_eq!(call(&agent, "DEL", "shop", &pod, &injected()), (None, true));
}

#[test]
fn while_the_agent_is_away_only_pods_of_the_mesh_wait() {
    let Some([pod, _]) = Namespace::two() else { return };
    let agent = Agent::start();
    agent.stop();
    let (printed, well) = call(&agent, "ADD", "shop", &pod, &injected());
    let printed = printed.unwrap();
    assert!(!well && printed["code"] == 11, "{printed}");
    let message = printed["msg"].as_str().unwrap();
    assert!(message.contains("shop/web-0") && message.contains("agent.sock"), "{message}");
    for (namespace, annotations) in
        [("shop", json!({"x": "y"})), ("kube-system", injected()), ("shop", json!(null))]
    {
        assert_eq!(
            call(&agent, "ADD", namespace, &pod, &annotations),
            (Some(previous()), true),
            "{namespace}"
        );
    }
    assert_eq!(call(&agent, "DEL", "shop", &pod, &injected()), (None, true), "a pod's end never waits");
    assert_eq!(pod.rules(), "");
}

#[test]
fn what_an_annotation_says_can_only_be_rules_of_its_own_pod() {
    let Some([pod, _]) = Namespace::two() else { return };
    let agent = Agent::start();
    for capture in [
        "[\"--outbound-ports\", \"80 return\\n delete table inet filter\"]",
        "[\"--dry-run\", \"x\"]",
        "no list",
        &format!("[\"--outbound-ports\", \"{}\"]", "80,".repeat(10_000)),
        &"x".repeat(200_000),
    ] {
        let (printed, well) = call(&agent, "ADD", "shop", &pod, &json!({"leno.dev/capture": capture}));
        let printed = printed.unwrap();
        assert!(!well && printed["code"] == 100, "{printed}");
        assert!(printed["details"].as_str().unwrap().contains("annotation"), "{printed}");
    }
    assert_eq!(pod.rules(), "");
}

#[test]
fn only_root_can_ask() {
    let Some(_root) = Namespace::two() else { return };
    let agent = Agent::start();
    assert_eq!(fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_nodes_own_namespace_is_never_written_to() {
    let Some([pod, _]) = Namespace::two() else { return };
    let agent = Agent::start();
    let (printed, well) =
        rig::call_at(&agent, "ADD", "shop", std::path::Path::new("/proc/self/ns/net"), &injected());
    let printed = printed.unwrap();
    assert!(!well && printed["details"].as_str().unwrap().contains("the node's own"), "{printed}");
    assert_eq!(pod.rules(), "");
}

#[test]
fn the_plugin_is_kept_in_place_and_stays_when_nobody_says_that_it_is_removed() {
    let Some(_root) = Namespace::two() else { return };
    let agent = Agent::start();
    let file = agent.conf().join("10-bridge.conflist");
    rig::until("the entry is there", || fs::read_to_string(&file).unwrap().contains("leno-cni"));
    assert!(agent.is_ready());
    fs::write(&file, BRIDGE).unwrap();
    rig::until("the entry is there again", || fs::read_to_string(&file).unwrap().contains("leno-cni"));
    fs::write(&file, "{").unwrap();
    rig::until("it says that it is not in place", || !agent.is_ready());
    fs::write(&file, BRIDGE).unwrap();
    rig::until("it is mended", || agent.is_ready());
    assert!(agent.stop().success());
    let entry = fs::read_to_string(&file).unwrap();
    assert!(entry.contains("leno-cni"), "no API server said that the DaemonSet is gone: {entry}");
}
