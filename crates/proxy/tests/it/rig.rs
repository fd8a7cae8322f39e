//! A control plane and some proxies in one process, with small applications behind them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use leno_control::Control;
use leno_identity::UnixTime;
use leno_model::{Millis, TrustDomain, WorkloadId};
use leno_proxy::{
    JoinToken, Proxy, ProxyOptions, Workers,
    bootstrap::{AccessLog, Bootstrap, Capture, Role, Roots},
    proxy_protocol::{Dialled, encode},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The virtual address of the service `web`.
pub(crate) const WEB: &str = "240.240.0.1:80";
/// The one Gateway that a rig can serve.
pub(crate) const EDGE: &str = "edge-9";
/// The virtual address of the service `raw`.
pub(crate) const RAW: &str = "240.240.0.2:7000";

/// See the module.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) control: Option<Control>,
    pub(crate) certificate_ttl: Millis,
    root: leno_ca::Root,
    workers: Arc<Workers>,
    pods: BTreeMap<String, (String, bool)>,
    control_address: SocketAddr,
    config: Value,
}

impl Rig {
    /// A control plane with these manifests; `clients` and `webs` are the numbers of pods.
    pub(crate) async fn start(manifests: &str, webs: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ca", "manifests", "overlay"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let root = leno_ca::Root::generate(&TrustDomain::default(), now()).unwrap();
        leno_ca::Intermediate::issue_by(&root, "west", now()).unwrap().pem().write(&path("ca")).unwrap();
        std::fs::write(path("manifests/all.yaml"), format!("{SERVICES}{manifests}")).unwrap();
        let mut pods = BTreeMap::from([("client-0".to_owned(), ("client".to_owned(), true))]);
        for index in 0..webs {
            pods.insert(format!("web-{index}"), ("web".to_owned(), true));
        }
        let config = json!({
            "cluster": "west", "listen": "127.0.0.1:0", "api": "127.0.0.1:0", "paths": [path("manifests")],
            "overlay": path("overlay/overlay.json"), "ca_dir": path("ca"), "tokens": path("tokens.json"),
            "certificates": {"shortest_seconds": 1},
        });
        let mut rig = Self {
            control: None,
            certificate_ttl: Millis(3_600_000),
            root,
            workers: Workers::start(2, "traffic").unwrap(),
            pods,
            control_address: "127.0.0.1:0".parse().unwrap(),
            config,
            folder,
        };
        rig.write_overlay();
        rig.write_tokens();
        rig.start_control().await;
        rig
    }

    /// Starts the control plane, at the same address as before.
    pub(crate) async fn start_control(&mut self) {
        self.config["listen"] = json!(self.control_address.to_string());
        let control = Control::start(serde_json::from_value(self.config.clone()).unwrap()).await.unwrap();
        control.ready().await.unwrap();
        self.control_address = control.discovery_address();
        self.control = Some(control);
    }

    /// Ends the control plane.
    pub(crate) async fn stop_control(&mut self) {
        self.control.take().unwrap().stop().await.unwrap();
    }

    /// A pod is, or is not, told to go.
    pub(crate) fn set_ready(&mut self, pod: &str, ready: bool) {
        self.pods.get_mut(pod).unwrap().1 = ready;
        self.write_overlay();
    }

    /// Replaces the manifests beside the services.
    pub(crate) fn write_manifests(&self, manifests: &str) {
        std::fs::write(self.path("manifests/all.yaml"), format!("{SERVICES}{manifests}")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_overlay(&self) {
        let pods: Vec<Value> = self.pods.iter().map(|(name, (app, ready))| pod(name, app, *ready)).collect();
        let overlay =
            json!({"services": {"default/web": "240.240.0.1", "default/raw": "240.240.0.2"}, "pods": pods});
        std::fs::write(self.path("overlay/new"), overlay.to_string()).unwrap();
        std::fs::rename(self.path("overlay/new"), self.path("overlay/overlay.json")).unwrap();
    }

    fn write_tokens(&self) {
        let expires = now().as_secs() + 600;
        let token = |(name, (app, _)): (&String, &(String, bool))| {
            let identity = format!("spiffe://cluster.local/ns/default/sa/{app}");
            (
                digest(&format!("token of {name}")),
                json!({"workload": format!("default/{name}"), "identity": identity, "expires": expires}),
            )
        };
        let gateway = (EDGE.to_owned(), (format!("{EDGE}-istio"), true));
        let pods = self.pods.iter().chain([(&gateway.0, &gateway.1)]);
        let tokens: serde_json::Map<String, Value> = pods.map(token).collect();
        std::fs::write(self.path("tokens.json"), Value::Object(tokens).to_string()).unwrap();
    }

    /// A token that works, besides those that the pods have from the start.
    pub(crate) fn add_token(&self, token: &str, pod: &str) {
        let mut tokens: Value =
            serde_json::from_slice(&std::fs::read(self.path("tokens.json")).unwrap()).unwrap();
        let grant = tokens[digest(&format!("token of {pod}"))].clone();
        tokens[digest(token)] = grant;
        std::fs::write(self.path("tokens.json"), tokens.to_string()).unwrap();
    }

    /// Starts a pod's proxy and waits until it is ready.
    pub(crate) async fn proxy(&self, name: &str) -> Proxy {
        let token = JoinToken::Once(format!("token of {name}"));
        self.proxy_with(self.bootstrap(name), token).await
    }

    /// Starts a proxy and waits until it is ready.
    pub(crate) async fn proxy_with(&self, bootstrap: Bootstrap, join_token: JoinToken) -> Proxy {
        self.proxy_on(&self.workers, bootstrap, join_token).await
    }

    /// Starts a proxy on threads that may be ended as its process would be, and waits until it is ready.
    pub(crate) async fn proxy_on(
        &self,
        workers: &Workers,
        bootstrap: Bootstrap,
        join_token: JoinToken,
    ) -> Proxy {
        let workers = (0..bootstrap.cores).map(|core| workers.get(core)).collect();
        let proxy = Proxy::start(ProxyOptions { bootstrap, join_token, workers }).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), proxy.ready()).await.expect("the proxy becomes ready");
        proxy
    }

    /// What a pod's proxy is told.
    pub(crate) fn bootstrap(&self, name: &str) -> Bootstrap {
        Bootstrap {
            workload: WorkloadId::new("default", name),
            uid: name.into(),
            role: if name == EDGE { Role::Gateway } else { Role::Sidecar },
            cluster: "west".into(),
            trust_domain: TrustDomain::default(),
            control: vec![self.control_address.into()],
            control_identity: leno_identity::control_plane_identity(&TrustDomain::default()),
            roots: Roots::Pem(self.root.certificate_pem()),
            certificate_ttl: self.certificate_ttl,
            state_dir: Some(self.path(name)),
            capture: Capture::ProxyProtocol,
            address: proxy_address(name),
            app_ports: BTreeMap::new(),
            app_address: app_address(name),
            low_port_offset: 0,
            cores: 1,
            drain: Millis(5000),
            allow_unknown: true,
            access_log: AccessLog::Off,
            tracing: None,
            probes: BTreeMap::new(),
        }
    }

    /// Roots as the control plane has them, in a file.
    pub(crate) fn roots_file(&self) -> PathBuf {
        let path = self.path("root-cert.pem");
        std::fs::write(&path, self.root.certificate_pem()).unwrap();
        path
    }
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: raw}
spec:
  selector: {app: web}
  ports: [{name: tcp, port: 7000, targetPort: 7000}]
---
apiVersion: v1
kind: Service
metadata: {name: webs}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 9080}]
---
";

fn pod(name: &str, app: &str, ready: bool) -> Value {
    let mut metadata = json!({
        "name": name, "namespace": "default", "uid": name,
        "labels": {"app": app, "version": "v1", "security.istio.io/tlsMode": "istio"},
    });
    if !ready {
        metadata["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"serviceAccountName": app, "containers": [{"name": "c", "ports": [{"containerPort": 9080}, {"containerPort": 7000}]}]},
        "status": {"podIP": proxy_address(name), "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// An application that answers with its name and counts.
pub(crate) struct App {
    pub(crate) requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl App {
    /// Behind the proxy of `name`; `status` is what it answers.
    pub(crate) async fn start(name: &str, status: u16) -> Self {
        Self::slow(name, status, Duration::ZERO).await
    }

    /// The same, which takes so long for each answer.
    pub(crate) async fn slow(name: &str, status: u16, time: Duration) -> Self {
        let listener = TcpListener::bind((app_address(name), 9080)).await.unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (counted, name) = (requests.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (counted, name) = (counted.clone(), name.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let seen: Vec<String> =
                        request.headers().iter().map(|(n, v)| format!("{n}: {v:?}")).collect();
                    let body = format!("{name} {} {}\n{}", request.method(), request.uri(), seen.join("\n"));
                    async move {
                        if time > Duration::ZERO {
                            tokio::time::sleep(time).await;
                        }
                        let response = Response::builder().status(status).body(Full::new(Bytes::from(body)));
                        Ok::<_, Infallible>(response.unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { requests, task }
    }

    /// How many requests reached it.
    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection of the client's application, through its proxy, to a virtual address.
pub(crate) fn dial(to: &str) -> TcpStream {
    let mut stream = TcpStream::connect((proxy_address("client-0"), 15001)).unwrap();
    let dialled = Dialled { source: "127.0.0.1:1".parse().unwrap(), destination: to.parse().unwrap() };
    stream.write_all(&encode(dialled)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// One request on a connection of its own; the whole response.
pub(crate) fn request(method: &str, path: &str, extra: &str) -> String {
    let mut stream = dial(WEB);
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n{extra}content-length: 0\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// As [`request`], away from the runtime's threads.
pub(crate) async fn ask(method: &'static str, path: &'static str, extra: &'static str) -> String {
    tokio::task::spawn_blocking(move || request(method, path, extra)).await.unwrap()
}

/// Reads until a text has come; everything that was read.
pub(crate) fn read_until(stream: &mut impl Read, text: &str) -> String {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(text.as_bytes()) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Whether a connection is closed or reset by its other end before it is quiet for long.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A page of a proxy's admin port.
pub(crate) async fn admin(pod: &str, page: &str) -> String {
    page_at(pod, 15000, page).await
}

/// A page of one of a proxy's own ports.
pub(crate) async fn page_at(pod: &str, port: u16, page: &str) -> String {
    let (address, page) = (proxy_address(pod), page.to_owned());
    let ask = move || {
        let mut stream = TcpStream::connect((address, port)).unwrap();
        write!(stream, "GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

/// Tries until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not within 10 s: {what}");
}

/// Where a pod's proxy is. Each test is a process of its own, so the process' number keeps them apart.
pub(crate) fn proxy_address(pod: &str) -> IpAddr {
    address(pod, 0)
}

pub(crate) fn app_address(pod: &str) -> IpAddr {
    address(pod, 128)
}

fn address(pod: &str, offset: u8) -> IpAddr {
    let number = match pod.rsplit_once('-') {
        Some(("client", _)) => 1,
        Some((_, index)) => 2 + index.parse::<u8>().unwrap(),
        None => unreachable!("pods are called APP-NUMBER"),
    };
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 242 + high % 12, low, offset + number).into()
}

fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}
