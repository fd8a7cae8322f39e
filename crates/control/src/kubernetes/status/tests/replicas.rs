//! A leader beside a whole other control plane, over real connections: what its proxies have not, nobody has.

use std::{fs, net::SocketAddr};

use leno_ca::{
    Authority, AuthorityPem,
    root::{Intermediate, Root},
};
use leno_identity::{
    ExpectedPeers, IdentityStore, KeyPair, SpiffeId, Trust, TrustDomain, WorkloadCertificate, client_config,
    control_plane_identity, csr_for,
};
use leno_xds::{
    Limits, NodeInfo,
    client::ClientState,
    proto::replicas::{AcknowledgedRequest, replicas_client::ReplicasClient},
    transport::{
        channel,
        client::{ClientConfig, Ends, run, subscriber},
    },
};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    Control, ControlConfig,
    certificate::{self, Own},
    clock,
    identity_service::IssueCounts,
    input::Said,
    peering::Peers,
    published::Newest,
};

/// Nothing in these tests takes this long.
const PATIENCE: Duration = Duration::from_secs(25);
const TTL: Duration = Duration::from_secs(600);
const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/split";

fn manifests() -> [Value; 3] {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
            "rules": [{"backendRefs": [{"name": "cart", "port": 80}]}]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIP": "240.240.0.1", "selector": {"app": "cart"}, "ports": [{"name": "http", "port": 80}]},
    });
    let labels = json!({"app": "cart", "security.istio.io/tlsMode": "istio"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart-0", "namespace": "shop", "labels": labels},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"podIP": "127.41.0.9", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    [route, service, pod]
}

/// Two replicas of one control plane: one whole, and what a leader needs of itself.
struct Replicas {
    _folder: TempDir,
    authority: Arc<Authority>,
    other: Option<Control>,
    address: SocketAddr,
    fake: Fake,
    leader: Views,
    published: Published,
}

impl Replicas {
    async fn start() -> Self {
        let (folder, domain) = (tempfile::tempdir().unwrap(), TrustDomain::default());
        let path = |name: &str| folder.path().join(name);
        let root = Root::generate(&domain, clock::now()).unwrap();
        fs::create_dir(path("ca")).unwrap();
        Intermediate::issue_by(&root, "west", clock::now()).unwrap().pem().write(&path("ca")).unwrap();
        let pem = AuthorityPem::read(&path("ca")).unwrap();
        let authority = Arc::new(Authority::from_pem(&domain, &pem, clock::now()).unwrap());
        for (number, object) in manifests().iter().enumerate() {
            fs::create_dir_all(path("manifests")).unwrap();
            fs::write(path(&format!("manifests/{number}.json")), object.to_string()).unwrap();
        }
        let config: ControlConfig = serde_json::from_value(json!({
            "cluster": "west", "listen": "127.0.0.1:0", "api": "127.0.0.1:0",
            "paths": [path("manifests")], "ca_dir": path("ca"),
        }))
        .unwrap();
        let other = Control::start(config.clone()).await.unwrap();
        timeout(PATIENCE, other.ready()).await.unwrap().unwrap();
        let fake = Fake::start().await;
        fake.put(ROUTE, json!({"metadata": {"name": "split"}}));
        let address = other.discovery_address();
        let published = of_leader(address);
        let leader = views(config, authority.clone());
        Self { _folder: folder, authority, other: Some(other), address, fake, leader, published }
    }

    async fn stop_other(&mut self) {
        timeout(PATIENCE, self.other.take().unwrap().stop()).await.unwrap().unwrap();
    }

    /// What the proxy of cart-0 shows.
    fn workload(&self) -> Arc<IdentityStore> {
        let identity = SpiffeId::workload(&TrustDomain::default(), "shop", "default").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = self.authority.issue(&csr_for(&key).unwrap(), &identity, TTL, clock::now()).unwrap();
        let certificate = WorkloadCertificate::new(issued.chain, key).unwrap();
        let trust = Trust::new([self.authority.bundle().clone()]);
        IdentityStore::with_certificate(trust, certificate)
    }

    /// A proxy of the other replica.
    fn proxy(&self) -> Ends {
        let store = self.workload();
        let node = NodeInfo {
            id: "shop/cart-0.test".into(),
            workload: "shop/cart-0".into(),
            cluster: "west".into(),
            version: "test".into(),
            features: leno_wire::KNOWN_FEATURES.iter().map(|&it| it.into()).collect(),
        };
        let state = ClientState::new(Limits::default(), node, []);
        let (runner, ends) = subscriber(state, ClientConfig::default());
        let address = self.address;
        tokio::spawn(run(runner, move || dial(address, store.clone())));
        ends
    }

    /// The round of a leader, and the condition that is there after it.
    async fn round(&self, statuses: &mut Statuses) -> (String, String) {
        let written =
            statuses.write(&self.fake.cluster(), &self.leader, &self.published, &Gateways::default()).await;
        written.unwrap();
        let route = self.fake.get(ROUTE);
        let conditions = route["status"]["parents"][0]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|it| it["type"] == "leno.dev/Acknowledged").unwrap();
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        (text("status"), text("message"))
    }

    /// Rounds until the message is this; until then not all have it.
    async fn rounds_until(&self, statuses: &mut Statuses, message: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, said) = self.round(statuses).await;
            if said == message {
                return;
            }
            assert_eq!(status, "False", "{said}");
            assert!(Instant::now() < end, "it still says {said}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The leader's world: the same objects, and where the other replica is.
fn of_leader(other: SocketAddr) -> Published {
    let endpoint = |pod: &str, address: String| json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "leno-control-1", "namespace": "leno-system",
            "labels": {"kubernetes.io/service-name": "leno-control"},
        },
        "addressType": "IPv4",
        "endpoints": [
            endpoint("leno-control-0", "127.0.0.2".to_owned()), endpoint("leno-control-1", other.ip().to_string()),
        ],
        "ports": [{"name": "grpc-xds", "port": other.port()}],
    });
    let objects = manifests().into_iter().chain([slice]);
    let world = World::of(objects.flat_map(|object| leno_apis::parse_json("", &object).objects));
    let compiled = leno_compile::compile(&world, &MeshSettings::default(), &[]);
    let since = UnixTime::since_unix_epoch(Duration::ZERO);
    // Its numbers are not the other's.
    Published { generation: 1000, world, compiled, reading: Arc::default(), since }
}

fn views(config: ControlConfig, authority: Arc<Authority>) -> Views {
    let own = Own { identity: control_plane_identity(&TrustDomain::default()), names: Vec::new() };
    Views {
        config: Arc::new(config),
        newest: Newest::default(),
        sessions: Sessions::default(),
        said: watch::channel(Said::default()).1,
        peers: Peers::new([]),
        store: certificate::first(&authority, &own, TTL).unwrap(),
        authority,
        counts: Arc::new(IssueCounts::default()),
        started: clock::now(),
    }
}

async fn dial(address: SocketAddr, store: Arc<IdentityStore>) -> std::io::Result<TlsStream<TcpStream>> {
    let expected = ExpectedPeers::new([control_plane_identity(&TrustDomain::default())]);
    let config = client_config(&store, &expected, &[b"h2"]);
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(leno_identity::CONTROL_PLANE_DNS_NAME).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_another_replica_that_is_behind_keeps_it_from_being_acknowledged() {
    let mut replicas = Replicas::start().await;
    let mut statuses = Statuses::default();
    let mut proxy = replicas.proxy();
    let landing = timeout(PATIENCE, proxy.landings.recv()).await.unwrap().unwrap();
    // It has been sent the route and has not answered.
    let pending = "proxies have not acknowledged it yet";
    replicas.rounds_until(&mut statuses, pending).await;
    for _ in 0..5 {
        assert_eq!(replicas.round(&mut statuses).await.0, "False");
    }
    let (_, judge) = landing.split();
    judge.accept();
    replicas.rounds_until(&mut statuses, "acknowledged 1/1").await;
    // A leader that comes later takes nothing back, and writes nothing.
    let writes = replicas.fake.writes().len();
    drop(proxy);
    replicas.stop_other().await;
    let said = replicas.round(&mut Statuses::default()).await;
    assert_eq!(said, ("True".to_owned(), "acknowledged 1/1".to_owned()));
    assert_eq!(replicas.fake.writes().len(), writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_answer_keeps_it_from_being_acknowledged_and_is_named() {
    let mut replicas = Replicas::start().await;
    replicas.stop_other().await;
    let said = replicas.round(&mut Statuses::default()).await;
    let text = "replica leno-control-1 does not say whether its proxies have acknowledged it";
    assert_eq!(said, ("False".to_owned(), text.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_answers_nobody_but_a_control_plane() {
    let mut replicas = Replicas::start().await;
    let address = replicas.address;
    let asked = |store: Arc<IdentityStore>| async move {
        let stream = dial(address, store).await.unwrap();
        let mut client = ReplicasClient::new(channel(stream).await.unwrap());
        let answer = client.acknowledged(AcknowledgedRequest { objects: Vec::new() }).await;
        answer.map_or_else(|error| error.code(), |_| tonic::Code::Ok)
    };
    let stranger = IdentityStore::new(Trust::new([replicas.authority.bundle().clone()]));
    assert_eq!(asked(stranger).await, tonic::Code::PermissionDenied);
    assert_eq!(asked(replicas.workload()).await, tonic::Code::PermissionDenied);
    assert_eq!(asked(replicas.leader.store.clone()).await, tonic::Code::Ok);
    replicas.stop_other().await;
}
