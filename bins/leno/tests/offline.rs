//! What the commands do without a mesh, also when nobody reads what they say.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

const SHOP: &str = include_str!("../../../crates/lab/tests/it/shop.yaml");

fn leno(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leno"));
    command.args(arguments).current_dir(folder).env("LENO_MESH", folder.join("mesh.json"));
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    leno(folder, arguments).output().unwrap()
}

/// A pipe of which nobody reads the other end.
fn unread() -> Stdio {
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    write.into()
}

#[test]
fn no_command_panics_when_nobody_reads_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
    for (arguments, code) in [
        (&["completion", "bash"][..], 0),
        (&["completion", "zsh"], 0),
        (&["--help"], 0),
        (&["version", "-o", "json"], 0),
        (&["analyze", "-f", "shop.yaml"], 0),
        (&["explain", "-f", "shop.yaml", "--from", "shop/web", "http://cart/"], 0),
        (&["status"], 3),
        (&["analyze", "-f", "nowhere"], 2),
        (&["frobnicate"], 2),
    ] {
        let status = leno(folder.path(), arguments).stdout(unread()).stderr(unread()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn explain_says_by_its_exit_code_whether_the_call_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let route = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{match: [{uri: {prefix: /items}}], rewrite: {uri: /inside}, route: [{destination: {host: cart}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: inside, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, rules: [{to: [{operation: {paths: [/inside*]}}]}]}
";
    fs::write(folder.path().join("shop.yaml"), format!("{SHOP}{route}")).unwrap();
    let code = |url: &str| {
        run(folder.path(), &["explain", "-f", "shop.yaml", "--from", "shop/web", url]).status.code()
    };
    assert_eq!(code("http://cart/items/1"), Some(0), "the path that is sent is allowed");
    assert_eq!(code("http://cart/other"), Some(1), "no route matches");
    assert_eq!(code("http://cart:81/items"), Some(1), "there is no such port");
}

#[test]
fn a_gateway_s_own_policies_are_part_of_the_explanation() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}], action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}
";
    fs::write(folder.path().join("shop.yaml"), format!("{SHOP}{policy}")).unwrap();
    let of = |url: &str| run(folder.path(), &["explain", "-f", "shop.yaml", "--from", "shop/edge", url]);
    assert_eq!(of("http://shop.example/").status.code(), Some(0));
    let denied = of("http://shop.example/admin");
    assert_eq!(denied.status.code(), Some(1));
    let text = String::from_utf8_lossy(&denied.stdout).into_owned();
    assert!(text.contains("DENIED: AuthorizationPolicy shop/no-admin"), "{text}");
}

#[test]
fn a_folder_without_cases_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("cases")).unwrap();
    fs::write(folder.path().join("cases/notes.txt"), "cases: []").unwrap();
    assert_eq!(run(folder.path(), &["test", "cases"]).status.code(), Some(2));
}

#[test]
fn nothing_at_all_is_no_problem_and_said_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["analyze", "-f", "-", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["errors"], output.status.code()), (&0.into(), Some(0)));
}

#[test]
fn the_guide_s_example_of_cases_holds_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let guide = include_str!("../../../docs/guide/testing-policy.md");
    let example = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
    let told = |cases: &str| {
        fs::write(folder.path().join("shop-cases.yaml"), cases).unwrap();
        let output = run(folder.path(), &["test", "shop-cases.yaml"]);
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let wrong = example.replacen("allowed: true", "denied: true", 1);
    for (cases, command) in [(example, 0), (&*wrong, 1)] {
        let shown = guide.split("$ leno test shop-cases.yaml\n").nth(command + 1);
        let shown = shown.and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(told(cases), shown);
    }
}
