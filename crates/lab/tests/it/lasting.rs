//! What only time shows: certificates that end and are renewed, a control plane that is away for a minute.
//!
//! Both meshes are of processes, and both are under load for most of a minute, side by side, because that is mostly waiting.

#![expect(clippy::print_stdout, reason = "figures for whoever reads the test's output")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use leno_lab::{
    load::{Handle, Load, PhaseStats, Plan, Target},
    mesh::{Mesh, MeshRecord, api},
    standin::Dialer,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::yard::{PATIENCE, SHOP, Yard, edge, eventually, get_on};

const LIFETIME: Duration = Duration::from_secs(20);
/// More than two lifetimes.
const UNDER_RENEWAL: Duration = Duration::from_secs(45);
const AWAY: Duration = Duration::from_secs(60);
/// Requests a second of each load.
const RATE: f64 = 40.0;

/// A TCP echo, for a tunnel that lives through renewals.
const WIRE: &str = "
apiVersion: v1
kind: Service
metadata: {name: wire, namespace: shop}
spec: {selector: {app: wire}, ports: [{name: tcp-wire, port: 7000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: wire, namespace: shop}
spec:
  selector: {matchLabels: {app: wire}}
  template:
    metadata: {labels: {app: wire}}
    spec: {containers: [{name: app, image: wire, ports: [{containerPort: 7000}]}]}
";

const MARKED: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: cart, port: 80}]
  - backendRefs: [{name: web, port: 80}]
";

#[tokio::test(flavor = "multi_thread")]
async fn renewals_and_a_minute_without_control_plane_lose_no_request() {
    tokio::join!(
        Box::pin(certificates_of_20_s_are_renewed_under_load()),
        Box::pin(a_control_plane_is_away_for_a_minute_and_comes_back_without_a_storm())
    );
}

async fn certificates_of_20_s_are_renewed_under_load() {
    let yard = Yard::new(&[("shop.yaml", SHOP), ("wire.yaml", WIRE)]);
    let mesh =
        yard.start_as(&["local"], |plan| (plan.processes, plan.certificate_ttl) = (true, LIFETIME)).await;
    let loads = Loads::start(&mesh);
    let mut held = Held::open(&mesh).await;
    let began = Instant::now();
    let mut serials: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let renewed = |serials: &BTreeMap<String, BTreeSet<String>>| {
        serials.values().filter(|all| all.len() > 2).count() == proxies(&mesh.record()).len()
    };
    while began.elapsed() < UNDER_RENEWAL || !renewed(&serials) {
        assert!(began.elapsed() < 3 * UNDER_RENEWAL, "not all were renewed twice: {serials:?}");
        for (name, admin) in proxies(&mesh.record()) {
            let own = api::get_json(admin, "/certs").await.unwrap();
            assert!(own["not_after"].as_u64().unwrap() <= now() + LIFETIME.as_secs(), "{name}: {own}");
            assert!(own["not_after"].as_u64().unwrap() > now(), "{name} has let it expire: {own}");
            serials.entry(name).or_default().insert(own["serial"].to_string());
        }
        held.use_all().await;
        sleep(Duration::from_millis(500)).await;
    }
    assert!(carried_to_wire(&mesh).await > 0, "the bytes of a connection are counted while it is open");
    let stats = loads.stop().await;
    let counts: Vec<usize> = serials.values().map(|all| all.len() - 1).collect();
    println!(
        "certificates of {LIFETIME:?} for {:?}: {} requests, renewals by proxy {counts:?}",
        began.elapsed(),
        stats.iter().map(|(_, stats)| stats.requests).sum::<u64>()
    );
    assert_nothing_failed(&stats);
    // Half a life, a fifth of that earlier or later; whole seconds, and one that was due when this began.
    let most = began.elapsed().as_secs() / (LIFETIME.as_secs() * 4 / 10 - 1) + 1;
    assert!(counts.iter().all(|count| *count as u64 <= most), "at most {most} each: {counts:?}");
    mesh.stop().await;
    yard.is_empty();
}

async fn a_control_plane_is_away_for_a_minute_and_comes_back_without_a_storm() {
    let yard = Yard::new(&[("shop.yaml", &SHOP.replace("replicas: 2", "replicas: 12")), ("wire.yaml", WIRE)]);
    let mesh = yard.start_as(&["local"], |plan| plan.processes = true).await;
    let loads = Loads::start(&mesh);
    let mut held = Held::open(&mesh).await;
    sleep(Duration::from_secs(2)).await;
    let first = sent(&mesh).await;
    let generation = status(&mesh).await["generation"].clone();

    mesh.kill_control("local").await.unwrap();
    let began = Instant::now();
    while began.elapsed() < AWAY {
        held.use_all().await;
        sleep(Duration::from_millis(500)).await;
    }
    assert!(api::get_json(mesh.record().clusters[0].api, "/v1/status").await.is_err(), "it is not away");
    // What is saved meanwhile concerns the gateway's proxy alone.
    yard.write("shop.yaml", &SHOP.replace("replicas: 2", "replicas: 12").replace(route(SHOP), MARKED));

    mesh.restore_control("local").await.unwrap();
    let back = Instant::now();
    let all = proxies(&mesh.record()).len() as u64;
    eventually("every proxy has acknowledged what is in force", async || {
        let rollout = status(&mesh).await["rollout"].take();
        rollout["acknowledged"] == all && rollout["expected"] == all
    })
    .await;
    let converged = back.elapsed();
    let page =
        get_on(&mut TcpStream::connect(edge(&mesh)).await.unwrap(), "/cart", "host: cart\r\n").await.unwrap();
    assert_eq!(page.1["service"], "cart", "what was saved meanwhile is in force: {page:?}");
    held.use_all().await;
    let stats = loads.stop().await;
    let second = sent(&mesh).await;
    println!(
        "away for {AWAY:?}, converged {converged:?} after the return (generation before: {generation}); sent before: {first:?}, \
         after: {second:?}"
    );
    assert_nothing_failed(&stats);
    // No storm: each proxy opens a stream (one in a hurry may need a second), and gets what changed, not what it has.
    assert!((all..=2 * all).contains(&second.streams), "{all} proxies, {second:?}");
    assert!(second.resources <= 4, "only the gateway's routes changed: {second:?}");
    assert!(second.resources > 0 && second.bytes * 2 < first.bytes, "before: {first:?}, after: {second:?}");
    mesh.stop().await;
}

/// The edge's route, in the shop's manifest.
fn route(shop: &str) -> &str {
    let at = shop.rfind("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute").unwrap();
    &shop[at..]
}

/// Open loops from outside and from a workload, over HTTP/1.1 and HTTP/2.
struct Loads(Vec<(&'static str, Handle)>);

impl Loads {
    fn start(mesh: &Mesh) -> Self {
        let edge = edge(mesh);
        let web = || mesh.dialer("local", "shop/web").expect("web runs");
        let page = Target::get(&edge.ip().to_string(), edge.port(), "/");
        let start =
            |name, target, dialer| (name, Load::start(Plan::new(RATE, vec![target], dialer)).unwrap());
        Self(vec![
            start("outside", page, Dialer::to_addresses()),
            start("web, HTTP/1.1", Target::get("cart", 80, "/"), web()),
            start("web, HTTP/2", Target::get_h2("cart", 80, "/"), web()),
        ])
    }

    async fn stop(self) -> Vec<(&'static str, PhaseStats)> {
        let stopping = self.0.into_iter().map(async |(name, handle)| (name, handle.stop().await));
        futures_util::future::join_all(stopping).await
    }
}

fn assert_nothing_failed(stats: &[(&str, PhaseStats)]) {
    for (name, stats) in stats {
        assert!(stats.requests as f64 > RATE * 0.8 * stats.seconds, "{name} was not under load: {stats:?}");
        assert_eq!(stats.failed, 0, "{name}: {:?}", stats.failures);
    }
}

/// Connections that were opened at the start and must live to the end.
struct Held {
    outside: TcpStream,
    web: TcpStream,
    wire: TcpStream,
}

impl Held {
    async fn open(mesh: &Mesh) -> Self {
        let web = mesh.dialer("local", "shop/web").expect("web runs");
        let mut held = Self {
            outside: TcpStream::connect(edge(mesh)).await.unwrap(),
            web: web.dial("cart", 80).await.unwrap(),
            wire: web.dial("wire", 7000).await.unwrap(),
        };
        held.use_all().await;
        held
    }

    async fn use_all(&mut self) {
        for (name, stream) in [("outside", &mut self.outside), ("web", &mut self.web)] {
            let answer = timeout(PATIENCE, get_on(stream, "/", "host: cart\r\n")).await;
            let answer = answer.unwrap_or_else(|_| panic!("{name}'s keep-alive connection hangs"));
            assert_eq!(
                answer.unwrap_or_else(|error| panic!("{name}'s keep-alive connection: {error}")).0,
                200
            );
        }
        let mut echo = [0; 12];
        let echoed = async {
            self.wire.write_all(b"still there\n").await?;
            self.wire.read_exact(&mut echo).await
        };
        timeout(PATIENCE, echoed).await.expect("the tunnel hangs").expect("the tunnel lives");
        assert_eq!(&echo, b"still there\n");
    }
}

/// What a control plane says that it has sent since its start.
#[derive(Debug)]
struct Sent {
    streams: u64,
    resources: u64,
    bytes: u64,
}

async fn sent(mesh: &Mesh) -> Sent {
    let page = api::get(mesh.record().clusters[0].api, "/metrics").await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    let value = |name: &str| {
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {page}"))
    };
    Sent {
        streams: value("leno_control_streams_total"),
        resources: value("leno_control_sent_resources_total"),
        bytes: value("leno_control_sent_bytes_total"),
    }
}

/// Bytes of the tunnel, as the server's proxy has counted them.
async fn carried_to_wire(mesh: &Mesh) -> u64 {
    let record = mesh.record();
    let wire = record.clusters[0].workloads.iter().find(|it| it.owner == "wire").unwrap();
    let page = api::get(wire.admin.unwrap(), "/stats/prometheus").await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    let line = page.lines().find(|line| line.starts_with("istio_tcp_received_bytes_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

async fn status(mesh: &Mesh) -> Value {
    api::get_json(mesh.record().clusters[0].api, "/v1/status").await.unwrap()
}

/// All proxies by name, with their admin addresses.
fn proxies(record: &MeshRecord) -> Vec<(String, SocketAddr)> {
    let cluster = &record.clusters[0];
    let workloads = cluster.workloads.iter().filter_map(|it| Some((it.id.to_string(), it.admin?)));
    let gateways = cluster.gateways.iter().map(|it| (it.id.to_string(), it.admin));
    workloads.chain(gateways).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}
