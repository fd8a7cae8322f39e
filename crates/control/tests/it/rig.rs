//! A control plane on the loopback interface, and a client as a proxy is one.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use leno_ca::root::{Intermediate, Root};
use leno_control::{
    Control, ControlConfig, token_digest,
    tokens::{TokenFile, TokenGrant},
};
use leno_identity::{
    ExpectedPeers, IdentityStore, KeyPair, SpiffeId, Trust, TrustBundle, TrustDomain, UnixTime,
    WorkloadCertificate, client_config, control_plane_identity, csr_for,
};
use leno_model::Resource;
use leno_xds::{
    Limits, NodeInfo,
    client::{ClientState, ScopeAnswer},
    proto::identity::{IssueRequest, IssueResponse, identity_client::IdentityClient},
    transport::client::{ClientConfig, Connection, Subscriber, run, subscriber},
};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Nothing in these tests takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest that a change may take to be in force.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

pub(crate) const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 240.240.0.1, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: depot}
spec: {clusterIP: 240.240.0.2, selector: {app: stock}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata:
  {name: secret, namespace: depot, annotations: {networking.istio.io/exportTo: .}}
spec: {clusterIP: 240.240.0.3, selector: {app: secret}, ports: [{name: http, port: 80}]}
";

/// A mesh: one root, and control planes made from it.
pub(crate) struct Mesh {
    root: Root,
    domain: TrustDomain,
}

/// One cluster of it, stopped or running.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) config: ControlConfig,
    pub(crate) control: Option<Control>,
    roots: TrustBundle,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let domain = TrustDomain::default();
        Self { root: Root::generate(&domain, now()).unwrap(), domain }
    }

    /// A cluster that is configured and not started: `MANIFESTS`, and a pod for cart.
    pub(crate) fn cluster(&self, name: &str, second_octet: u8) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("manifests")).unwrap();
        fs::create_dir(path("ca")).unwrap();
        fs::create_dir(path("state")).unwrap();
        fs::write(path("manifests/mesh.yaml"), MANIFESTS).unwrap();
        fs::write(path("manifests/pods.yaml"), pod("shop", "cart", "cart-0", second_octet)).unwrap();
        Intermediate::issue_by(&self.root, name, now()).unwrap().pem().write(&path("ca")).unwrap();
        let config = serde_json::from_value(json!({
            "cluster": name, "region": name,
            "listen": free_address(), "api": "127.0.0.1:0",
            "paths": [path("manifests")], "ca_dir": path("ca"),
            "tokens": path("tokens.json"), "state_dir": path("state"),
        }));
        Cluster { config: config.unwrap(), folder, control: None, roots: self.root.bundle().unwrap() }
    }

    pub(crate) fn identity(&self, namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::workload(&self.domain, namespace, account).unwrap()
    }
}

impl Cluster {
    pub(crate) async fn start(&mut self) {
        let control = Control::start(self.config.clone()).await.unwrap();
        within(control.ready()).await.unwrap();
        self.control = Some(control);
    }

    pub(crate) async fn stop(&mut self) {
        within(self.control.take().unwrap().stop()).await.unwrap();
    }

    pub(crate) fn manifest(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name)
    }

    /// Lets a token in.
    pub(crate) fn token(&self, text: &str, workload: &str, identity: SpiffeId) {
        let path = self.folder.path().join("tokens.json");
        let mut tokens: TokenFile =
            fs::read(&path).map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default();
        let grant = TokenGrant { workload: workload.into(), identity, expires: now().as_secs() + 60 };
        tokens.insert(token_digest(text.as_bytes()), grant);
        fs::write(path, serde_json::to_vec(&tokens).unwrap()).unwrap();
    }

    /// Asks for a certificate, with what `store` has to show.
    pub(crate) async fn issue(
        &self,
        store: &Arc<IdentityStore>,
        key: &KeyPair,
        token: &str,
        ttl_seconds: u64,
    ) -> Result<IssueResponse, tonic::Status> {
        let connection = dial(self.config.listen, store.clone()).await.unwrap();
        let channel = leno_xds::transport::channel(connection).await.unwrap();
        let request = IssueRequest {
            csr_der: csr_for(key).unwrap().into_bytes().into(),
            join_token: token.to_owned().into_bytes().into(),
            ttl_seconds,
        };
        Ok(within(IdentityClient::new(channel).issue(request)).await?.into_inner())
    }

    /// A certificate for a token.
    pub(crate) async fn join(&self, token: &str) -> Result<Arc<IdentityStore>, tonic::Status> {
        let store = IdentityStore::new(Trust::new([self.roots.clone()]));
        let key = KeyPair::generate().unwrap();
        let issued = self.issue(&store, &key, token, 0).await?;
        let chain = issued.chain_der.iter().map(|der| der.to_vec());
        store.set_certificate(WorkloadCertificate::from_der(chain, key).unwrap());
        Ok(store)
    }

    /// A discovery client of cart-0, whose certificate it gets by token.
    pub(crate) async fn cart(&self, mesh: &Mesh) -> Proxy {
        let token = format!("cart-{}", rand::random::<u64>());
        self.token(&token, "shop/cart-0", mesh.identity("shop", "default"));
        let store = self.join(&token).await.unwrap();
        self.connect("shop/cart-0", store)
    }

    /// A discovery client that says that it is `workload`'s.
    pub(crate) fn connect(&self, workload: &str, store: Arc<IdentityStore>) -> Proxy {
        let node = NodeInfo {
            id: format!("{workload}.test").into(),
            workload: workload.into(),
            cluster: self.config.cluster.shared(),
            version: "test".into(),
            features: leno_wire::KNOWN_FEATURES.iter().map(|&it| it.into()).collect(),
        };
        let state = ClientState::new(Limits::default(), node, []);
        let (runner, ends) = subscriber(state, ClientConfig::default());
        let address = self.config.listen;
        tokio::spawn(run(runner, move || dial(address, store.clone())));
        let (has_in, has) = watch::channel(Vec::new());
        let mut landings = ends.landings;
        tokio::spawn(async move {
            while let Some(landing) = landings.recv().await {
                let (landed, judge) = landing.split();
                has_in.send_modify(|has: &mut Vec<Resource>| {
                    let gone = |it: &Resource| {
                        let key = it.key();
                        let same = |other: &leno_xds::ResourceKey| {
                            other.kind == key.kind as u32 && other.name == key.name
                        };
                        landed.removed.iter().any(same) || landed.resources.iter().any(|new| same(&new.key))
                    };
                    has.retain(|it| !gone(it));
                    for new in &landed.resources {
                        has.push(leno_wire::decode(new.key.kind, &new.key.name, &new.payload).unwrap());
                    }
                });
                judge.accept();
            }
        });
        Proxy { subscriber: ends.subscriber, connection: ends.connection, has }
    }

    /// An answer of the API.
    pub(crate) async fn api(&self, path: &str) -> Value {
        let address = self.control.as_ref().unwrap().api_address();
        serde_json::from_str(&within(get(address, path)).await).unwrap()
    }

    /// Asks the API until it says what is wanted.
    pub(crate) async fn api_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.api(path).await;
            if wanted(&said) {
                return said;
            }
            assert!(Instant::now() < end, "{path} still says {said:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A discovery client as a proxy has one.
pub(crate) struct Proxy {
    subscriber: Subscriber,
    connection: watch::Receiver<Connection>,
    pub(crate) has: watch::Receiver<Vec<Resource>>,
}

impl Proxy {
    pub(crate) async fn subscribe(&self, scope: &str) -> ScopeAnswer {
        self.subscriber.subscribe(scope.into(), Instant::now() + PATIENCE).await.unwrap()
    }

    /// Waits until it has what is wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&[Resource]) -> bool) -> Vec<Resource> {
        within(self.has.wait_for(|has| wanted(has))).await.unwrap().clone()
    }

    /// Why it is not connected.
    pub(crate) async fn refusal(&mut self) -> String {
        let refused = |it: &Connection| matches!(it, Connection::Waiting { .. });
        let state = within(self.connection.wait_for(refused)).await.unwrap().clone();
        let Connection::Waiting { cause, .. } = state else { panic!("not refused") };
        cause.to_string()
    }
}

/// Names of what a client has, sorted.
pub(crate) fn names(has: &[Resource]) -> Vec<String> {
    let mut names: Vec<String> = has.iter().map(|it| it.key().to_string()).collect();
    names.sort();
    names
}

/// A running pod of the mesh, with the account `default`.
pub(crate) fn pod(namespace: &str, app: &str, name: &str, second_octet: u8) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  {{name: {name}, namespace: {namespace}, labels: {{app: {app}, security.istio.io/tlsMode: istio}}}}
spec: {{containers: [{{name: app}}]}}
status:
  podIP: 127.{second_octet}.0.9
  phase: Running
  conditions: [{{type: Ready, status: 'True'}}]
"
    )
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

pub(crate) fn now() -> UnixTime {
    UnixTime::now()
}

async fn dial(address: SocketAddr, store: Arc<IdentityStore>) -> std::io::Result<TlsStream<TcpStream>> {
    let expected = ExpectedPeers::new([control_plane_identity(&TrustDomain::default())]);
    let config = client_config(&store, &expected, &[b"h2"]);
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(leno_identity::CONTROL_PLANE_DNS_NAME).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// An address that was free a moment ago: peers must know it before its owner starts.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
