//! A mesh of pods without Kubernetes: a control plane on a node, two pods with captured proxies, plain applications.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Stdio,
    sync::mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use leno_control::Control;
use leno_identity::UnixTime;
use leno_model::TrustDomain;
use serde_json::{Value, json};

use crate::namespace::{APP, NODE, Namespace, Network, PROXY, Process, pod_addresses, until};

/// The service's virtual address.
const WEB: &str = "198.19.0.10";
const CONTROL: &str = "198.18.0.1:15012";

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: webs}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080}]
---
";
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";
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
const PROBES: &str = r#"{"concurrency": 2, "probes": {
    "web/livez": {"httpGet": {"path": "/page", "port": 8080}, "timeoutSeconds": 5},
    "web/readyz": {"httpGet": {"path": "/nothing", "port": 8080}, "timeoutSeconds": 5},
    "web/startupz": {"tcpSocket": {"port": 8080}}}}"#;

/// The node, its control plane, the pods `web-0` and `client-0` and what runs in them.
struct Mesh {
    processes: Vec<Process>,
    network: Network,
    folder: tempfile::TempDir,
    _control: mpsc::Sender<()>,
}

impl Mesh {
    /// With control plane and applications, without proxies. `None` without root.
    fn new() -> Option<Self> {
        let network = Network::new(2)?;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ca", "manifests", "overlay", "www", "outside"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("www/page"), "the application").unwrap();
        fs::write(path("outside/page"), "somebody outside").unwrap();
        let root = leno_ca::Root::generate(&TrustDomain::default(), now()).unwrap();
        leno_ca::Intermediate::issue_by(&root, "west", now()).unwrap().pem().write(&path("ca")).unwrap();
        fs::write(path("root-cert.pem"), root.certificate_pem()).unwrap();
        fs::write(path("manifests/all.yaml"), SERVICES).unwrap();
        let pods: Vec<Value> = PODS.iter().enumerate().map(|(index, app)| pod(index, app)).collect();
        let overlay = json!({"services": {"default/web": WEB}, "pods": pods});
        fs::write(path("overlay/overlay.json"), overlay.to_string()).unwrap();
        fs::write(path("tokens.json"), tokens().to_string()).unwrap();
        let config = json!({
            "cluster": "west", "listen": CONTROL, "api": "127.0.0.1:0", "paths": [path("manifests")],
            "overlay": path("overlay/overlay.json"), "ca_dir": path("ca"), "tokens": path("tokens.json"),
        });
        let control = start_control(&network.node, config);
        let processes = vec![
            server(&network.pods[0], APP, &path("www"), 8080),
            server(&network.pods[0], APP, &path("www"), 8090),
            server(&network.node, APP, &path("outside"), 8080),
        ];
        Some(Self { processes, network, folder, _control: control })
    }

    /// Starts the proxy of a pod.
    fn proxy(&mut self, index: usize) {
        let name = format!("{}-0", PODS[index]);
        self.start_proxy(index, "sidecar", &name, &[]);
    }

    /// Starts a proxy in a pod's namespace.
    fn start_proxy(&mut self, index: usize, role: &str, name: &str, more: &[(&str, &str)]) {
        let (state, token) =
            (self.folder.path().join(name), self.folder.path().join(format!("{name}.token")));
        fs::create_dir_all(&state).unwrap();
        chown(&state, Some(PROXY), Some(PROXY)).unwrap();
        fs::write(&token, format!("token of {name}\n")).unwrap();
        let mut command = self.network.pods[index].command(PROXY, env!("CARGO_BIN_EXE_leno-proxy"));
        command.arg(role).arg("--roots").arg(self.folder.path().join("root-cert.pem"));
        command.arg("--token").arg(token).arg("--state").arg(state);
        command.env("POD_NAME", name).env("POD_NAMESPACE", "default").env("POD_UID", name);
        command.env("POD_IP", &pod_addresses(index)[0]).env("LENO_CLUSTER", "west");
        // Nobody listens at the first.
        command.env("LENO_CONTROL", format!("127.0.0.1:1,{CONTROL}")).env("LENO_PROXY_CONFIG", PROBES);
        command.envs(more.iter().copied());
        self.processes.push(Process::start(command.stderr(Stdio::inherit())));
    }

    fn capture(&self, index: usize) {
        self.network.pods[index].run(0, &[env!("CARGO_BIN_EXE_leno-proxy"), "capture"]).unwrap();
    }

    /// Both pods with capture and ready proxies.
    fn start(&mut self) {
        for index in 0..PODS.len() {
            self.capture(index);
            self.proxy(index);
        }
        for index in 0..PODS.len() {
            until("the proxy is ready", || self.ready(index));
        }
    }

    fn ready(&self, index: usize) -> Result<String, String> {
        get(&self.network.node, APP, &format!("http://{}:15021/healthz/ready", pod_addresses(index)[0]))
    }

    fn metrics(&self, index: usize) -> String {
        let page = format!("http://{}:15020/stats/prometheus", pod_addresses(index)[0]);
        get(&self.network.node, APP, &page).unwrap()
    }

    fn client(&self, url: &str) -> Result<String, String> {
        get(&self.network.pods[1], APP, url)
    }

    fn outsider(&self, url: &str) -> Result<String, String> {
        get(&self.network.node, APP, url)
    }

    fn set_strict(&self) {
        let manifests = self.folder.path().join("manifests/all.yaml");
        fs::write(manifests, format!("{SERVICES}{STRICT}")).unwrap();
        let refused =
            || self.outsider(&format!("http://{}:8080/page", pod_addresses(0)[0])).err().ok_or("answered");
        until("STRICT is in force", || refused().map_err(str::to_owned));
    }
}

const PODS: [&str; 2] = ["web", "client"];

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
    mesh.start_proxy(1, "gateway", "public", &[("LENO_GATEWAY", "default/public")]);
    until("the sidecar is ready", || mesh.ready(0));
    until("the gateway is ready, without capture", || mesh.ready(1));
    let [v4, v6] = pod_addresses(1);
    for url in [format!("http://{v4}/page"), format!("http://[{v6}]/page")] {
        assert_eq!(until("the route is there", || mesh.outsider(&url)), "the application");
    }
    assert!(counted(&mesh.metrics(0), "mutual_tls") >= 2);
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

fn get(from: &Namespace, user: u32, url: &str) -> Result<String, String> {
    from.run(user, &["curl", "-sS", "-f", "-g", "-m", "10", url])
}

/// An application that knows nothing of any mesh.
fn server(namespace: &Namespace, user: u32, folder: &Path, port: u16) -> Process {
    let mut command = namespace.command(user, "python3");
    command.args(["-m", "http.server", &port.to_string(), "--bind", "::", "--directory"]).arg(folder);
    let process = Process::start(command.stderr(Stdio::null()));
    let url = format!("http://127.0.0.1:{port}/page");
    until("the application answers", || get(namespace, user, &url));
    process
}

/// A control plane in this process whose sockets are the node's; it ends with the sender.
fn start_control(node: &Namespace, config: Value) -> mpsc::Sender<()> {
    let (stop, stopped) = mpsc::channel::<()>();
    let (ready, started) = mpsc::channel();
    let entry = node.entry();
    node.enter(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(entry)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let control = Control::start(serde_json::from_value(config).unwrap()).await.unwrap();
            control.ready().await.unwrap();
            ready.send(()).unwrap();
            // Ends when the test drops its side.
            let _ = tokio::task::spawn_blocking(move || stopped.recv()).await;
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
    });
    started.recv_timeout(Duration::from_secs(30)).expect("the control plane starts");
    stop
}

fn pod(index: usize, app: &str) -> Value {
    let name = format!("{app}-0");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": name,
            "labels": {"app": app, "security.istio.io/tlsMode": "istio"},
        },
        "spec": {"serviceAccountName": app, "containers": [{"name": app, "ports": [{"containerPort": 8080}]}]},
        "status": {
            "podIP": pod_addresses(index)[0], "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn tokens() -> Value {
    let expires = now().as_secs() + 600;
    let token = |name: &str, account: &str| {
        let digest = leno_ca::token_digest(format!("token of {name}").as_bytes());
        let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
        (digest, json!({"workload": format!("default/{name}"), "identity": identity, "expires": expires}))
    };
    let pods = PODS.iter().map(|app| token(&format!("{app}-0"), app));
    Value::Object(pods.chain([token("public", "public-leno")]).collect())
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}
