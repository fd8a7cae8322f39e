//! A file is saved while requests go on: how soon it is in force, and what becomes of a broken one.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::rig::{PATIENCE, SHOP, Up, eventually, get, load, stdout};

const CHANGES: usize = 20;
/// What a user is promised.
const PROMPT: Duration = Duration::from_secs(1);
const RATE: f64 = 50.0;

/// A route that marks its answers.
fn route(mark: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: marked, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
  - matches: [{{path: {{value: /marked}}}}]
    filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-mark, value: '{mark}'}}]}}}}]
    backendRefs: [{{name: web, port: 80}}]
"
    )
}

#[test]
fn twenty_changes_are_in_force_within_a_second_and_a_broken_one_is_refused_without_a_failed_request() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mesh = Up::of(SHOP, &["--processes"]);
    let edge = mesh.edge();
    mesh.write("route.yaml", &route("0"));
    until_marked(edge, "0");
    let load = runtime.block_on(async { load(edge, RATE) });
    let mut took = Vec::new();
    for change in 1..=CHANGES {
        // Not in step with anything that looks at files by the clock.
        thread::sleep(Duration::from_millis(100 + 37 * (change as u64 % 7)));
        let saved = Instant::now();
        mesh.write("route.yaml", &route(&change.to_string()));
        until_marked(edge, &change.to_string());
        took.push(saved.elapsed());
    }
    took.sort();
    let median = took[CHANGES / 2];
    println!("from saving to effect: {:?} to {:?}, median {median:?}", took[0], took[CHANGES - 1]);
    assert!(median < PROMPT, "{took:?}");

    let broken = route("broken").replace("  rules:\n", "  rules: }\n");
    let line = broken.lines().position(|line| line.contains("rules: }")).unwrap() + 1;
    mesh.write("route.yaml", &broken);
    let status = eventually("the refusal is shown", || {
        let status = mesh.json(&["status"])["clusters"][0].take();
        (!status["kept"].as_array()?.is_empty()).then_some(status)
    });
    assert_eq!(status["kept"][0]["object"]["name"], "marked", "{status}");
    assert_eq!(status["kept"][0]["because"][0]["at"]["line"], line, "{status}");
    let told = stdout(&mesh.leno(&["status"]));
    let place = format!("route.yaml:{line}:");
    assert!(told.contains("refused change: HTTPRoute shop/marked stays in force"), "{told}");
    assert!(told.contains(&place), "{told}");
    until_marked(edge, &CHANGES.to_string());

    mesh.write("route.yaml", &route("again"));
    until_marked(edge, "again");
    let kept = mesh.json(&["status"])["clusters"][0]["kept"].take();
    assert_eq!(kept, serde_json::json!([]), "nothing is refused any more");
    let last = eventually("the repair is told", || {
        let told = mesh.errors();
        let last = told.lines().last()?.to_owned();
        last.contains("the manifests are in order again: generation ").then_some(last)
    });
    assert!(last.contains("INFO"), "{last}");

    let stats = runtime.block_on(load.stop());
    assert!(stats.requests as f64 > RATE, "{stats:?}");
    assert_eq!(stats.failed, 0, "{:?}", stats.failures);
    assert!(stats.by_label.keys().all(String::is_empty), "every page had its cart: {:?}", stats.by_label);
    mesh.stop();
}

fn until_marked(edge: SocketAddr, mark: &str) {
    let (deadline, wanted) = (Instant::now() + PATIENCE, format!("x-mark: {mark}\r\n"));
    while !get(edge, "/marked").contains(&wanted) {
        assert!(Instant::now() < deadline, "{mark} is not in force in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
