//! `leno install`, `uninstall` and `check` as programs see them: exit codes, and what goes where.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output},
};

fn leno(kubeconfig: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leno"));
    command.args(arguments).env_remove("KUBECONFIG").env("HOME", "/nowhere");
    command.args(["--kubeconfig", kubeconfig]).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

const COMMANDS: [&str; 3] = ["install", "uninstall", "check"];

#[test]
fn a_kubeconfig_that_is_not_there_is_wrong_usage_and_is_named() {
    for command in COMMANDS {
        let (code, text) = said(&leno("/nowhere/config", &[command]));
        assert!(code == Some(2) && text.contains("/nowhere/config"), "{command}: {code:?} {text}");
    }
}

#[test]
fn a_cluster_that_cannot_be_reached_has_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],\n \
         clusters: [{{name: c, cluster: {{server: \"http://{closed}\"}}}}], users: [{{name: u, user: {{}}}}]}}\n"
    );
    let path = folder.path().join("config");
    fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    for command in COMMANDS {
        let (code, text) = said(&leno(path, &[command]));
        assert!(code == Some(3) && text.contains("cannot be reached"), "{command}: {code:?} {text}");
    }
    let output = leno(path, &["install", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["problem"].as_str().unwrap().contains("Namespace leno-system"), "{answer}");
    assert_eq!(answer["steps"], serde_json::json!([]));
}

#[test]
fn printing_needs_no_cluster() {
    let output = leno("/nowhere/config", &["install", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("kind: MutatingWebhookConfiguration"));
}

#[test]
fn a_wait_of_no_length_and_an_unknown_value_are_refused_before_anything_is_asked() {
    for arguments in [
        &["install", "--timeout", "0s"][..],
        &["install", "--wait=maybe"],
        &["install", "--set", "replica=3"],
    ] {
        assert_eq!(leno("/nowhere/config", arguments).status.code(), Some(2), "{arguments:?}");
    }
}
