//! Two clusters in two regions and two networks, of processes: one loses its workloads, then the other its control plane.

use std::{fs, path::PathBuf, thread, time::Duration};

use leno_lab::load::{Handle, PhaseStats};

use crate::rig::{SHOP, Up, eventually, folder, json, load, page, signal, stdout};

const RATE: f64 = 50.0;

/// Lets everybody's path `/cart` lead to the cart itself, and the cart's callers be two that it knows.
const TO_CART: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: to-cart, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{matches: [{path: {value: /cart}}], backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/edge-istio, cluster.local/ns/shop/sa/web]}}]}]
";

#[test]
fn traffic_moves_to_another_cluster_and_back_and_nothing_safe_to_retry_fails() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (west, east) = (shop("west", 2), shop("east", 2));
    let folder = folder(&[("west/shop.yaml", &west), ("east/shop.yaml", &east), ("both/cart.yaml", TO_CART)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let cluster = |name: &str, network: &str| {
        format!("{name}={},{},region=us-{name},zone=us-{name}-1,network={network}", path(name), path("both"))
    };
    let (one, two) = (cluster("west", "one"), cluster("east", "two"));
    let manifest = folder.path().join("west/shop.yaml");
    let arguments = ["--processes", "--cluster", &one, "--cluster", &two];
    let mesh = Up::start(folder, &arguments, "");
    let edge = mesh.edge_of("west");
    knows_of_both(&mesh);
    let explained =
        |asked: &[&str]| stdout(&mesh.leno(&[&["explain", "--from", "shop/web"], asked].concat()));
    for (cluster, asked) in
        [("west", &["http://cart/"][..]), ("east", &["http://cart/", "--cluster", "east"])]
    {
        let said = explained(asked);
        let named = said.starts_with("in the cluster west (--cluster names another)\n");
        assert_eq!(named, cluster == "west", "the one that was taken, unless it was asked for: {said}");
    }
    let load = Watched(runtime.block_on(async { load(edge, RATE) }));
    thread::sleep(Duration::from_secs(2));
    let near = load.cut("near first");
    assert_eq!(near.by_label.keys().collect::<Vec<_>>(), ["west"], "the nearest region first");

    stopped_and_started_again(&mesh, &load, &manifest);
    killed_and_back_by_itself(&mesh, &load);
    without_east_s_control_plane(&mesh, &load, &manifest);
    let stats = runtime.block_on(load.0.stop());
    assert_eq!(stats.failed, 0, "{:?}", stats.failures);
    mesh.stop();
}

fn stopped_and_started_again(mesh: &Up, load: &Watched, manifest: &PathBuf) {
    fs::write(manifest, shop("west", 0)).unwrap();
    load.until_from("east", "west's carts were stopped");
    let answer = page(mesh.edge_of("west"), "/cart");
    assert_eq!(answer["version"], "east", "{answer}");
    let seen = answer["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    assert!(seen.contains("By=spiffe://cluster.local/ns/shop/sa/cart"), "{answer}");
    assert!(seen.contains("URI=spiffe://cluster.local/ns/shop/sa/edge-istio"), "{answer}");
    assert!(
        !answer.to_string().contains("eastwest"),
        "the gateway between the networks is nobody's peer: {answer}"
    );

    fs::write(manifest, shop("west", 2)).unwrap();
    load.until_from("west", "west's carts were started again");
}

/// The proxies of west's carts end without a word, in the middle of requests; their supervisor starts them again.
fn killed_and_back_by_itself(mesh: &Up, load: &Watched) {
    let carts = mesh.processes("/west/proxies/shop_cart");
    assert_eq!(carts.len(), 2, "{carts:?}");
    carts.iter().for_each(|process| signal("KILL", process));
    eventually("others take their places", || {
        let others = mesh.processes("/west/proxies/shop_cart");
        (others.len() == 2 && !others.iter().any(|process| carts.contains(process))).then_some(())
    });
    load.until_from("west", "west's carts are back");
}

fn without_east_s_control_plane(mesh: &Up, load: &Watched, manifest: &PathBuf) {
    let control = mesh.processes("/east/control.json");
    let [control] = control.as_slice() else { panic!("{control:?}") };
    signal("KILL", control);
    let status = eventually("west says that it does not hear east", || {
        let status = mesh.json(&["status", "--cluster", "west"])["clusters"][0].take();
        (status["peers"][0]["stale"] == true).then_some(status)
    });
    let peer = &status["peers"][0];
    assert_eq!((&peer["cluster"], &peer["connected"]), (&"east".into(), &false.into()), "{peer}");
    assert!(peer["endpoints"].as_u64().unwrap() >= 3, "its endpoints stay: {peer}");
    let told = stdout(&mesh.leno(&["status", "--cluster", "west"]));
    assert!(told.contains("cluster east: stale, last heard"), "{told}");
    let both = mesh.leno(&["status", "-o", "json"]);
    assert_eq!(both.status.code(), Some(3), "a control plane does not answer");
    assert_eq!(json(&both)["clusters"][1], serde_json::json!({"cluster": "east", "reachable": false}));

    fs::write(manifest, shop("west", 0)).unwrap();
    load.until_from("east", "east's control plane and west's carts are gone");
    fs::write(manifest, shop("west", 2)).unwrap();
    load.until_from("west", "west's carts were started again, without east's control plane");
}

/// The shop whose carts say which cluster they are of.
fn shop(version: &str, carts: usize) -> String {
    SHOP.replace("replicas: 2", &format!("replicas: {carts}")).replace(
        "metadata: {labels: {app: cart}}",
        &format!("metadata: {{labels: {{app: cart, version: {version}}}}}"),
    )
}

fn knows_of_both(mesh: &Up) {
    eventually("west knows east's carts", || {
        let services = mesh.json(&["get", "services", "shop/cart", "--cluster", "west"]);
        (services[0]["endpoints"]["ready"] == 4).then_some(())
    });
}

struct Watched(Handle);

impl Watched {
    /// What happened since the last cut, of which nothing failed.
    fn cut(&self, what: &str) -> PhaseStats {
        let stats = self.0.cut_phase();
        assert_eq!(stats.failed, 0, "{what}: {:?}", stats.failures);
        let failed: Vec<_> = stats.by_label.keys().filter(|label| label.starts_with("failed")).collect();
        assert!(failed.is_empty(), "{what}: {:?}", stats.by_label);
        stats
    }

    /// Waits until all answers for a second come from one cluster; nothing fails before, nor then.
    fn until_from(&self, cluster: &str, what: &str) {
        eventually(&format!("{cluster} answers, because {what}"), || {
            thread::sleep(Duration::from_secs(1));
            let stats = self.cut(what);
            (stats.requests > 0 && stats.by_label.keys().eq([cluster])).then_some(())
        });
    }
}
