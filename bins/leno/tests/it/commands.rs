//! Every other command through the program: what it says in JSON, and its exit codes as `--help` documents them.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::rig::{SHOP, Up, alone, eventually, folder, json, leno, stderr, stdout};

const COMMANDS: [&str; 11] =
    ["up", "demo", "run", "analyze", "explain", "test", "status", "get", "why", "version", "completion"];

const CASES: &str = "
files: [shop.yaml]
from: shop/web
cases:
  - name: the page may call the cart
    request: http://cart/
    expect: {allowed: true, mtls: true}
";

#[test]
fn help_says_what_each_command_is_for_and_what_exit_codes_mean() {
    let help = alone(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in COMMANDS {
        assert!(stdout(&help).contains(&format!("\n  {command} ")), "{command}: {}", stdout(&help));
        let own = alone(&[command, "--help"]);
        assert!(own.status.success() && stdout(&own).contains("Usage: leno"), "{own:?}");
        assert!(stdout(&own).lines().count() > 8, "worth reading: {}", stdout(&own));
    }
    for code in ["0 done", "1 a check failed", "2 wrong usage", "3 the mesh or cluster cannot be reached"] {
        assert!(stdout(&help).contains(code), "{code}: {}", stdout(&help));
    }
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let folder = folder(&[
        ("good.yaml", SHOP),
        ("broken.yaml", &SHOP.replace("replicas: 2", "replicas: many")),
        ("cases.yaml", &CASES.replace("shop.yaml", "good.yaml")),
        ("false.yaml", &CASES.replace("shop.yaml", "good.yaml").replace("allowed: true", "denied: true")),
        ("odd.yaml", &CASES.replace("shop.yaml", "good.yaml").replace("expect:", "expects:")),
    ]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let code = |arguments: &[&str]| alone(arguments).status.code();
    assert_eq!(code(&["version"]), Some(0));
    assert_eq!(code(&["analyze", "-f", &at("good.yaml")]), Some(0));
    assert_eq!(code(&["analyze", "-f", &at("broken.yaml")]), Some(1));
    assert_eq!(code(&["analyze", "-f", "/nowhere"]), Some(2));
    assert_eq!(code(&["test", &at("cases.yaml")]), Some(0));
    assert_eq!(code(&["test", &at("false.yaml")]), Some(1));
    assert_eq!(code(&["test", &at("odd.yaml")]), Some(2));
    assert_eq!(code(&["test", "/nowhere"]), Some(2));
    let record = folder.path().join("runtime/mesh.json");
    assert_eq!(leno(&record, &["up", "-f", "/nowhere"]).status.code(), Some(2));
    assert_eq!(code(&["why", "no id!"]), Some(2));
    assert_eq!(code(&["frobnicate"]), Some(2));
    for asked in [
        &["status"][..],
        &["analyze"],
        &["why", "12-3"],
        &["get", "services"],
        &["explain", "--from", "shop/web", "http://cart/"],
        &["run", "--workload", "shop/web", "--", "true"],
    ] {
        let output = alone(asked);
        assert_eq!(output.status.code(), Some(3), "no mesh runs: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("is `leno up` running?"), "{output:?}");
    }
}

#[test]
fn cases_and_versions_are_told_in_json() {
    let folder = folder(&[("shop.yaml", SHOP), ("cases.yaml", CASES)]);
    let cases = folder.path().join("cases.yaml");
    let passed = json(&alone(&["test", "-o", "json", cases.to_str().unwrap()]));
    assert_eq!((&passed["passed"], &passed["failed"]), (&1.into(), &0.into()), "{passed}");
    fs::write(&cases, CASES.replace("mtls: true", "mtls: false")).unwrap();
    let failed = json(&alone(&["test", "-o", "json", cases.to_str().unwrap()]));
    assert_eq!((&failed["passed"], &failed["failed"]), (&0.into(), &1.into()), "{failed}");
    let version = json(&alone(&["version", "-o", "json"]));
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn completions_are_scripts_that_their_shells_accept() {
    for (shell, check) in [("bash", true), ("zsh", false), ("fish", false)] {
        let script = stdout(&alone(&["completion", shell]));
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}: {script}");
        if check {
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
}

#[test]
fn a_running_mesh_answers_every_question_in_json_and_in_columns() {
    let mesh = Up::of(SHOP, &["-o", "json"]);
    mesh.edge();
    let count = |what: &str, at_least: usize| {
        let rows = mesh.json(&["get", what]);
        let rows = rows.as_array().unwrap_or_else(|| panic!("{what}: {rows}")).clone();
        assert!(rows.len() >= at_least, "{what}: {rows:?}");
        assert!(rows.iter().all(|row| row["cluster"] == "local"), "{what}: {rows:?}");
        let text = stdout(&mesh.leno(&["get", what]));
        assert!(text.lines().count() >= rows.len(), "{what}: {text}");
        rows
    };
    assert_eq!(count("workloads", 3).len(), 3);
    assert_eq!(count("services", 2).len(), 2);
    assert_eq!(count("gateways", 1)[0]["object"], "Gateway shop/edge");
    assert_eq!(count("proxies", 4).len(), 4);
    count("objects", 8);
    count("resources", 8);
    assert_eq!(count("diagnostics", 0), Vec::<Value>::new());
    assert_eq!(count("peers", 0), Vec::<Value>::new());
    let carts = mesh.json(&["get", "workloads", "cart"]);
    assert_eq!(carts.as_array().unwrap().len(), 2, "{carts}");
    let objects = mesh.json(&["analyze"]);
    assert_eq!((&objects["errors"], &objects["warnings"]), (&0.into(), &0.into()), "{objects}");
    let status = mesh.json(&["status"]);
    assert_eq!(status["clusters"][0]["cluster"], "local", "{status}");

    let unknown = mesh.leno(&["why", "12345678-9", "-o", "json"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let told = json(&unknown);
    assert_eq!(told["found"], false, "{told}");
    assert!(told["because"].as_str().unwrap().starts_with("no proxy knows"), "{told}");
    let nobody = mesh.leno(&["get", "workloads", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    assert!(
        stdout(&nobody).is_empty() && stderr(&nobody).contains("no workload is called nobody"),
        "{nobody:?}"
    );
    let elsewhere = mesh.leno(&["status", "--cluster", "elsewhere"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");

    mesh.write("shop.yaml", &SHOP.replace("replicas: 2", "replicas: 5"));
    eventually("there are more carts", || {
        let carts = mesh.json(&["get", "workloads", "cart"]);
        let ready = carts.as_array()?.iter().filter(|cart| cart["ready"] == true).count();
        (ready == 5).then_some(())
    });
    let told = mesh.errors();
    assert!(!told.contains("discovery refused"), "what is new is no fault: {told}");
    mesh.stop();
}

#[test]
fn what_is_missing_or_misspelt_is_named() {
    let folder = folder(&[("shop.yaml", SHOP)]);
    let shop = folder.path().join("shop.yaml").display().to_string();
    let misspelt = format!("west={shop},regoin=x");
    for (arguments, parts) in [
        (&["up"][..], &["--file", "--cluster"][..]),
        (&["up", "--cluster", misspelt.as_str()], &["unknown key regoin; did you mean region?"]),
        (&["demo", "--for", "5s"], &["at least 20s", "a canary's share"]),
        (&["analyze", "--code", "LN109"], &["there is no code LN109", "did you mean LN"]),
    ] {
        let output = alone(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        parts.iter().for_each(|part| assert!(stderr(&output).contains(part), "{part}: {output:?}"));
    }
}

#[test]
fn every_code_says_what_it_means() {
    let one = alone(&["analyze", "--code", "ln1009"]);
    assert!(one.status.success(), "{one:?}");
    assert!(stdout(&one).starts_with("LN1009: the reference is to an object"), "{one:?}");
    let all = json(&alone(&["analyze", "--code", "all", "-o", "json"]));
    let codes: Vec<&str> = all.as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
    for code in ["LN0001", "LN1001", "LN2001"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert!(stdout(&alone(&["analyze", "--help"])).contains("--code"));
}

#[test]
fn a_misspelt_expectation_is_named_once_and_the_other_cases_are_run() {
    let odd = "  - {name: odd, request: http://cart/, expect: {alowed: true}}\n";
    let folder = folder(&[("shop.yaml", SHOP), ("cases.yaml", &format!("{CASES}{odd}"))]);
    let cases = folder.path().join("cases.yaml");
    let told = alone(&["test", cases.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert_eq!(stdout(&told), "1 passed, 0 failed; not all were run: 1 mistake\n");
    let said = stderr(&told);
    assert!(said.trim_end().ends_with("unknown key `alowed`; did you mean `allowed`?"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_demo_whose_claim_does_not_hold_says_so_in_json_and_exits_with_1() {
    let folder = folder(&[]);
    let record = folder.path().join("mesh.json");
    let small = ["demo", "--for", "20s", "--services", "6", "--clusters", "2", "--rate", "100", "-o", "json"];
    // The phase `steady` measures what the mesh adds.
    let broken = ["--only", "steady", "--only", "canary", "--break", "canary"];
    let output = leno(&record, &[&small[..], &broken].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stdout(&output);
    let report: Value = serde_json::from_str(text.trim_end().lines().last().unwrap()).unwrap();
    for name in ["up_seconds", "services", "clusters", "proxies", "requests", "failed", "plaintext_accepted"]
    {
        assert!(report[name].is_number(), "{name}: {report}");
    }
    for name in ["p50", "p99", "outside_p50"] {
        assert!(report["overhead_ms"][name].is_number(), "{name}: {report}");
    }
    assert_eq!(report["phases"][0]["name"], "steady", "{report}");
    let phase = &report["phases"][1];
    assert_eq!((&phase["name"], &phase["holds"]), (&"canary".into(), &false.into()), "{report}");
    for name in ["requests", "failed", "p50_ms", "p99_ms"] {
        assert!(phase[name].is_number(), "{name}: {report}");
    }
    assert!(phase["claim"].is_string(), "{report}");
    assert_eq!(text.trim_end().lines().count(), 1, "all else goes to standard error: {text}");
}
