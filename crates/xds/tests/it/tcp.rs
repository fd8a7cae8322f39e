//! The protocol over real TCP connections on the loopback interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use leno_xds::client::{ClientState, Landed, ScopeAnswer};
use leno_xds::transport::client::{ClientConfig, Connection, Ends, SubscribeError, run, subscriber};
use leno_xds::transport::server::{DiscoveryService, ServerConfig, serve};
use leno_xds::transport::{Authorizer, Peer, PeerStream, Publisher, Unauthorized};
use leno_xds::{Catalog, Change, EncodedResource, Limits, NodeInfo, ResourceKey, Version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;

#[tokio::test]
async fn scopes_are_answered_and_changes_land() {
    let server = Server::start(Publisher::default()).await;
    server.publisher.publish(catalog(&[("a", "1")]), Change::everything());
    let mut ends = connect(&server, "a", []);
    let consumer = ends.accept_all();
    assert_eq!(subscribe(&ends, "scope/a").await, Ok(ScopeAnswer::Loaded));
    assert_eq!(subscribe(&ends, "scope/b").await, Ok(ScopeAnswer::NotFound));
    let changed = Change::of_resources([key("a")]);
    let number = server.publisher.publish(catalog(&[("a", "2")]), changed);
    let mut changes = server.service.sessions().changes();
    within(
        changes.wait_for(|_| {
            server.service.sessions().all().iter().any(|it| it.acked_publication == Some(number))
        }),
    )
    .await
    .unwrap();
    drop(ends.ends.subscriber);
    let landed = within(consumer).await.unwrap();
    let payloads: Vec<&[u8]> = landed.iter().flat_map(|it| &it.resources).map(|it| &it.payload[..]).collect();
    assert_eq!(payloads, [b"1", b"2"]);
    server.stop().await;
}

#[tokio::test]
async fn after_a_reconnection_only_differences_are_sent() {
    let server = Server::start(Publisher::default()).await;
    server.publisher.publish(catalog(&[("a", "1"), ("b", "1")]), Change::everything());
    let mut ends = connect(&server, "a", []);
    let consumer = ends.accept_all();
    assert_eq!(subscribe(&ends, "scope/a").await, Ok(ScopeAnswer::Loaded));
    assert_eq!(subscribe(&ends, "scope/b").await, Ok(ScopeAnswer::Loaded));
    server.stop().await;
    let replica = Server::start(Publisher::default()).await;
    replica.publisher.publish(catalog(&[("a", "1"), ("b", "2")]), Change::everything());
    *ends.address.lock().unwrap() = replica.address;
    let mut changes = replica.service.sessions().changes();
    within(
        changes
            .wait_for(|_| replica.service.sessions().all().iter().any(|it| it.acked_publication == Some(1))),
    )
    .await
    .unwrap();
    drop(ends.ends.subscriber);
    let landed = within(consumer).await.unwrap();
    let last = landed.last().unwrap();
    assert_eq!(last.resources.iter().map(|it| &it.key).collect::<Vec<_>>(), [&key("b")]);
    assert_eq!(last.answered.len(), 2);
    replica.stop().await;
}

#[tokio::test]
async fn a_generation_larger_than_a_message_lands_as_one() {
    let server = Server::start(Publisher::default()).await;
    let large = "x".repeat(1_500_000);
    let all: Vec<String> = (0..5).map(|at| format!("r{at}")).collect();
    let all: Vec<(&str, &str)> = all.iter().map(|name| (name.as_str(), large.as_str())).collect();
    server.publisher.publish(catalog(&all), Change::everything());
    let mut ends = connect(&server, "a", []);
    let consumer = ends.accept_all();
    assert_eq!(subscribe(&ends, "all").await, Ok(ScopeAnswer::Loaded));
    drop(ends.ends.subscriber);
    let landed = within(consumer).await.unwrap();
    assert_eq!(landed.iter().map(|it| it.resources.len()).max(), Some(5));
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_claims_another_workload_is_refused_and_told_why() {
    let server = Server::start(Publisher::default()).await;
    let mut ends = connect(&server, "impostor", []);
    let waits = |it: &Connection| matches!(it, Connection::Waiting { .. });
    let state = within(ends.ends.connection.wait_for(waits)).await.unwrap().clone();
    let Connection::Waiting { cause, .. } = state else { panic!("not waiting") };
    assert!(cause.contains("not your workload"), "{cause}");
    assert!(server.service.sessions().all().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn without_a_publication_a_subscription_ends_at_its_deadline() {
    let server = Server::start(Publisher::default()).await;
    let ends = connect(&server, "a", []);
    let answer = ends.ends.subscriber.subscribe("scope/a".into(), Instant::now()).await;
    assert_eq!(answer, Err(SubscribeError::Deadline));
    server.stop().await;
}

#[tokio::test]
async fn a_refused_batch_is_reported_with_its_reason() {
    let server = Server::start(Publisher::default()).await;
    server.publisher.publish(catalog(&[("a", "1")]), Change::everything());
    let mut ends = connect(&server, "a", [(key("old"), Version(1))]);
    let (landed, judge) = within(ends.ends.landings.recv()).await.unwrap().split();
    assert_eq!(landed.removed, [key("old")]);
    judge.refuse("no room".into());
    let mut changes = server.service.sessions().changes();
    let told = |status: &leno_xds::server::SessionStatus| {
        status.refused.as_ref().is_some_and(|it| &*it.error == "no room")
    };
    within(changes.wait_for(|_| server.service.sessions().all().iter().any(|it| told(it)))).await.unwrap();
    server.stop().await;
}

struct Server {
    address: SocketAddr,
    publisher: Publisher,
    service: DiscoveryService,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Admits every node but the impostor, if it came with the identity that `start` gives to connections.
struct Gate;

impl Authorizer for Gate {
    fn authorize(&self, peer: &Peer, node: &NodeInfo) -> Result<(), Unauthorized> {
        assert_eq!(peer.identity.as_deref(), Some("spiffe://mesh/ns/shop/sa/cart"));
        if &*node.id == "impostor" {
            return Err(Unauthorized { reason: "not your workload".into() });
        }
        Ok(())
    }
}

impl Server {
    async fn start(publisher: Publisher) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = DiscoveryService::new(ServerConfig::default(), publisher.clone(), Gate);
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            let identity = Some("spiffe://mesh/ns/shop/sa/cart".into());
            stream.map(|stream| PeerStream::new(stream, Peer { identity, address: None }))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let running = service.clone();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serve(&running, running.routes(), incoming, stopped).await.unwrap();
        });
        Self { address, publisher, service, stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        within(self.task).await.unwrap();
    }
}

struct Client {
    ends: Ends,
    address: Arc<Mutex<SocketAddr>>,
}

impl Client {
    /// Accepts every batch; yields them all when the client ends.
    fn accept_all(&mut self) -> JoinHandle<Vec<Landed>> {
        let (_, empty) = tokio::sync::mpsc::channel(1);
        let mut landings = std::mem::replace(&mut self.ends.landings, empty);
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(landing) = landings.recv().await {
                let (landed, judge) = landing.split();
                all.push(landed);
                judge.accept();
            }
            all
        })
    }
}

fn connect(server: &Server, id: &str, have: impl IntoIterator<Item = (ResourceKey, Version)>) -> Client {
    let node = NodeInfo { id: id.into(), workload: "shop/cart".into(), ..NodeInfo::default() };
    let state = ClientState::new(Limits::default(), node, have);
    let (runner, ends) = subscriber(state, ClientConfig::default());
    let address = Arc::new(Mutex::new(server.address));
    let dialled = address.clone();
    tokio::spawn(run(runner, move || TcpStream::connect(*dialled.lock().unwrap())));
    Client { ends, address }
}

async fn subscribe(client: &Client, scope: &str) -> Result<ScopeAnswer, SubscribeError> {
    client.ends.subscriber.subscribe(scope.into(), Instant::now() + Duration::from_secs(20)).await
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("it takes less than 20 s")
}

/// `scope/x` is the resource `x`, and `all` is all of them.
struct Flat(BTreeMap<ResourceKey, EncodedResource>);

fn catalog(resources: &[(&str, &str)]) -> Arc<dyn Catalog> {
    let encode = |(name, content): &(&str, &str)| {
        (key(name), EncodedResource::new(key(name), Bytes::copy_from_slice(content.as_bytes()), []))
    };
    Arc::new(Flat(resources.iter().map(encode).collect()))
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::new(1, name)
}

impl Catalog for Flat {
    fn closure(&self, _: &NodeInfo, scope: &str) -> Option<Vec<ResourceKey>> {
        if scope == "all" {
            return Some(self.0.keys().cloned().collect());
        }
        let key = key(scope.strip_prefix("scope/")?);
        self.0.contains_key(&key).then(|| vec![key])
    }

    fn resource(&self, key: &ResourceKey) -> Option<&EncodedResource> {
        self.0.get(key)
    }

    fn always(&self, _: &NodeInfo) -> Vec<ResourceKey> {
        Vec::new()
    }
}
