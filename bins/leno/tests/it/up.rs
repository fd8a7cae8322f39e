//! `leno up` with every control plane and proxy a process of its own.

use crate::rig::{SHOP, Up, eventually, get, stdout};

const NO_ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin*]}}]}]
";

#[test]
fn a_mesh_of_processes_serves_explains_itself_and_leaves_nothing() {
    let mesh = Up::of(SHOP, &["--processes"]);
    let edge = mesh.edge();
    let answer = get(edge, "/");
    assert!(answer.contains("\"service\":\"web\""), "{answer}");

    let status = mesh.json(&["status"]);
    assert_eq!(status["clusters"][0]["rollout"]["expected"], 4, "three workloads and a gateway");

    let explained = mesh.leno(&["explain", "--from", "shop/web", "http://cart/"]);
    assert!(explained.status.success(), "{explained:?}");
    assert!(stdout(&explained).contains("ALLOWED"), "{explained:?}");

    mesh.write("no-admin.yaml", NO_ADMIN);
    let denial = eventually("the policy denies", || {
        let answer = get(edge, "/admin/users");
        let line = answer.lines().find_map(|line| line.strip_prefix("x-leno-denial: "))?;
        Some(line.trim().to_owned())
    });
    assert!(get(edge, "/").starts_with("HTTP/1.1 200"), "the policy is about /admin alone");
    let why = mesh.leno(&["why", &denial]);
    let file = mesh.folder.path().join("manifests/no-admin.yaml");
    let place = format!("{}:", file.display());
    for part in ["GET /admin/users", "shop/no-admin, rule 0", "sa/edge-istio", &place] {
        assert!(why.status.success() && stdout(&why).contains(part), "{part}: {why:?}");
    }
    assert_eq!(mesh.json(&["why", &denial])["origin"]["name"], "no-admin");

    let proxies = mesh.processes("");
    assert_eq!(proxies.len(), 5, "four proxies and a control plane: {proxies:?}");
    mesh.stop();
}
