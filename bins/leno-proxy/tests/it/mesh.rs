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

use crate::namespace::{APP, Namespace, Network, PROXY, Process, pod_addresses, until};

/// The service's virtual address.
pub(crate) const WEB: &str = "198.19.0.10";
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
const PROBES: &str = r#"{"concurrency": 2, "probes": {
    "web/livez": {"httpGet": {"path": "/page", "port": 8080}, "timeoutSeconds": 5},
    "web/readyz": {"httpGet": {"path": "/nothing", "port": 8080}, "timeoutSeconds": 5},
    "web/startupz": {"tcpSocket": {"port": 8080}}}}"#;

/// The node, its control plane, the pods `web-0` and `client-0` and what runs in them.
pub(crate) struct Mesh {
    processes: Vec<Process>,
    pub(crate) network: Network,
    pub(crate) folder: tempfile::TempDir,
    _control: mpsc::Sender<()>,
}

impl Mesh {
    /// With control plane and applications, without proxies. `None` without root.
    pub(crate) fn new() -> Option<Self> {
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
    pub(crate) fn proxy(&mut self, index: usize) {
        let name = format!("{}-0", PODS[index]);
        self.start_proxy(index, "sidecar", &name, &[]);
    }

    /// Starts a proxy in a pod's namespace.
    pub(crate) fn start_proxy(&mut self, index: usize, role: &str, name: &str, more: &[(&str, &str)]) {
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

    /// Tells the proxy that was started last to stop.
    pub(crate) fn terminate_last(&self) {
        self.processes.last().unwrap().terminate();
    }

    pub(crate) fn capture(&self, index: usize) {
        self.network.pods[index].run(0, &[env!("CARGO_BIN_EXE_leno-proxy"), "capture"]).unwrap();
    }

    /// Both pods with capture and ready proxies.
    pub(crate) fn start(&mut self) {
        for index in 0..PODS.len() {
            self.capture(index);
            self.proxy(index);
        }
        for index in 0..PODS.len() {
            until("the proxy is ready", || self.ready(index));
        }
    }

    pub(crate) fn ready(&self, index: usize) -> Result<String, String> {
        get(&self.network.node, APP, &format!("http://{}:15021/healthz/ready", pod_addresses(index)[0]))
    }

    pub(crate) fn metrics(&self, index: usize) -> String {
        let page = format!("http://{}:15020/stats/prometheus", pod_addresses(index)[0]);
        get(&self.network.node, APP, &page).unwrap()
    }

    pub(crate) fn client(&self, url: &str) -> Result<String, String> {
        get(&self.network.pods[1], APP, url)
    }

    pub(crate) fn outsider(&self, url: &str) -> Result<String, String> {
        get(&self.network.node, APP, url)
    }

    pub(crate) fn set_strict(&self) {
        let manifests = self.folder.path().join("manifests/all.yaml");
        fs::write(manifests, format!("{SERVICES}{STRICT}")).unwrap();
        let refused =
            || self.outsider(&format!("http://{}:8080/page", pod_addresses(0)[0])).err().ok_or("answered");
        until("STRICT is in force", || refused().map_err(str::to_owned));
    }
}

const PODS: [&str; 2] = ["web", "client"];

pub(crate) fn get(from: &Namespace, user: u32, url: &str) -> Result<String, String> {
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
