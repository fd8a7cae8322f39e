//! What captured proxies do for plain applications, for strangers and for the pod's own probes.

use std::{fs, thread, time::Duration};

use crate::{
    mesh::{Mesh, WEB, get},
    namespace::{APP, NODE, pod_addresses, until},
};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public}
spec:
  gatewayClassName: leno
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: public}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

#[test]
fn a_plain_request_by_virtual_address_goes_over_mtls_and_plaintext_into_strict_is_refused() {
    let Some(mut mesh) = Mesh::new() else { return };
    mesh.start();
    let page = format!("http://{WEB}/page");
    assert_eq!(mesh.client(&page).unwrap(), "the application");
    assert!(counted(&mesh.metrics(0), "mutual_tls") > 0, "{}", mesh.metrics(0));
    assert_eq!(counted(&mesh.metrics(0), "none"), 0);

    let [v4, v6] = pod_addresses(0);
    let outside = [
        format!("http://{v4}:8080/page"),
        format!("http://[{v6}]:8080/page"),
        format!("http://{v4}:8090/page"),
    ];
    for url in &outside {
        assert_eq!(mesh.outsider(url).unwrap(), "the application", "PERMISSIVE, declared port or not: {url}");
    }
    assert!(counted(&mesh.metrics(0), "none") > 0);
    mesh.set_strict();
    for url in &outside {
        let refused = mesh.outsider(url).unwrap_err();
        assert!(
            refused.contains("exit status: 52") || refused.contains("exit status: 56"),
            "{url}: {refused}"
        );
    }
    let metrics = mesh.metrics(0);
    assert!(metrics.contains("leno_plaintext_refused_total{port=\"8090\"}"), "{metrics}");
    assert_eq!(mesh.client(&page).unwrap(), "the application", "the mesh goes on");
}

#[test]
fn under_strict_pods_are_called_by_headless_name_by_themselves_and_by_probes() {
    let Some(mut mesh) = Mesh::new() else { return };
    mesh.start();
    mesh.set_strict();
    let [v4, _] = pod_addresses(0);
    assert_eq!(
        mesh.client(&format!("http://{v4}:8080/page")).unwrap(),
        "the application",
        "a headless service's pod"
    );
    let itself = |url: &str| get(&mesh.network.pods[0], APP, url);
    let before = counted(&mesh.metrics(0), "mutual_tls");
    assert_eq!(itself(&format!("http://{WEB}/page")).unwrap(), "the application", "through its own service");
    assert!(counted(&mesh.metrics(0), "mutual_tls") > before);
    assert_eq!(itself(&format!("http://{v4}:8080/page")).unwrap(), "the application", "at its own address");
    assert_eq!(itself("http://127.0.0.1:8080/page").unwrap(), "the application");

    let probe = |name: &str| {
        let url = format!("http://{v4}:15020/app-health/{name}");
        mesh.network
            .node
            .run(APP, &["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", &url])
            .unwrap()
    };
    assert_eq!(
        ["web/livez", "web/readyz", "web/startupz", "web/other"].map(probe),
        ["200", "500", "200", "404"]
    );
}

#[test]
fn what_the_mesh_does_not_know_passes_and_administration_is_for_the_pod_itself() {
    let Some(mut mesh) = Mesh::new() else { return };
    mesh.start();
    for url in [format!("http://{}:8080/page", NODE[0]), format!("http://[{}]:8080/page", NODE[1])] {
        assert_eq!(mesh.client(&url).unwrap(), "somebody outside");
    }
    assert!(mesh.metrics(1).contains("PassthroughCluster"), "it went through the proxy");
    let [v4, _] = pod_addresses(1);
    mesh.outsider(&format!("http://{v4}:15000/config_dump")).unwrap_err();
    assert!(mesh.client("http://127.0.0.1:15000/config_dump").unwrap().contains("default/client-0"));
    let loops = mesh.client(&format!("http://{v4}:15001/")).unwrap_err();
    assert!(
        loops.contains("exit status: 52") || loops.contains("exit status: 56"),
        "a loop is refused: {loops}"
    );
}

#[test]
fn the_outbound_port_is_for_its_own_pod_at_either_of_its_addresses() {
    let Some(mut mesh) = Mesh::new() else { return };
    mesh.start();
    // Somebody else's rules lead strangers to the outbound port, with an address that is not the port's own.
    let rules = "table inet other { chain in { type nat hook prerouting priority -110; tcp dport 8090 redirect to :15001; }; };";
    mesh.network.pods[0].run(0, &["nft", rules]).unwrap();
    for address in pod_addresses(0) {
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let refused = mesh.outsider(&format!("http://{host}:8090/page")).unwrap_err();
        assert!(
            refused.contains("exit status: 52") || refused.contains("exit status: 56"),
            "{host}: {refused}"
        );
    }
    for address in [NODE[0].to_owned(), format!("[{}]", NODE[1])] {
        let own = get(&mesh.network.pods[0], APP, &format!("http://{address}:8080/page"));
        assert_eq!(own.unwrap(), "somebody outside", "from the pod's address of that family");
    }
}

#[test]
fn a_proxy_without_working_capture_is_not_ready_and_says_why() {
    let Some(mut mesh) = Mesh::new() else { return };
    mesh.proxy(0);
    let body = |mesh: &Mesh| {
        let page = format!("http://{}:15021/healthz/ready", pod_addresses(0)[0]);
        mesh.network.node.run(APP, &["curl", "-sS", "-m", "10", &page])
    };
    let only_capture = |mesh: &Mesh| {
        let said = body(mesh)?;
        let others = said.lines().skip(1).any(|line| !line.starts_with("capture: "));
        if said.contains("is not redirected to port 15001") && !others { Ok(said) } else { Err(said) }
    };
    until("only capture is missing", || only_capture(&mesh));
    mesh.ready(0).unwrap_err();
    assert!(mesh.metrics(0).contains("leno_capture_works 0"), "{}", mesh.metrics(0));
    mesh.capture(0);
    until("capture is seen", || mesh.ready(0));
    assert!(mesh.metrics(0).contains("leno_capture_works 1"));
    mesh.network.pods[0].run(0, &["nft", "delete table inet leno"]).unwrap();
    until("its loss is seen", || only_capture(&mesh));
    assert!(mesh.metrics(0).contains("leno_capture_failures_total{cause="), "{}", mesh.metrics(0));
    mesh.capture(0);
    until("its return is seen", || mesh.ready(0));
}

#[test]
fn a_gateway_serves_its_ports_on_all_addresses_of_its_pod() {
    let Some(mut mesh) = Mesh::new() else { return };
    let Mesh { network, folder, .. } = &mesh;
    fs::write(folder.path().join("manifests/gateway.yaml"), GATEWAY).unwrap();
    // As the pod of a gateway has it, so that its user may listen on port 80.
    network.pods[1].run(0, &["sysctl", "-w", "net.ipv4.ip_unprivileged_port_start=0"]).unwrap();
    mesh.capture(0);
    mesh.proxy(0);
    mesh.start_proxy(1, "gateway", "public", &[("LENO_GATEWAY", "default/public"), ("LENO_DRAIN", "60s")]);
    until("the sidecar is ready", || mesh.ready(0));
    until("the gateway is ready, without capture", || mesh.ready(1));
    let [v4, v6] = pod_addresses(1);
    for url in [format!("http://{v4}/page"), format!("http://[{v6}]/page")] {
        assert_eq!(until("the route is there", || mesh.outsider(&url)), "the application");
    }
    assert!(counted(&mesh.metrics(0), "mutual_tls") >= 2);

    // Told to stop, it says so, and serves on until a load balancer may have noticed: long after a sidecar would have left.
    mesh.terminate_last();
    until("it says that it drains", || match mesh.ready(1) {
        Err(said) if said.contains("503") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    thread::sleep(Duration::from_secs(4));
    assert_eq!(mesh.outsider(&format!("http://{v4}/page")).unwrap(), "the application");
}

/// Requests that the destination's proxy has counted, by their connection's security.
fn counted(metrics: &str, security: &str) -> u64 {
    let wanted = format!("connection_security_policy=\"{security}\"");
    let lines = metrics.lines().filter(|line| {
        line.starts_with("istio_requests_total{")
            && line.contains("reporter=\"destination\"")
            && line.contains(&wanted)
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map(|count| count as u64).sum()
}
