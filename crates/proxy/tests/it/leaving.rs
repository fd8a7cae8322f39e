//! Endpoints that leave, with and without a word: what callers notice of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use leno_model::Millis;
use leno_proxy::{JoinToken, Proxy, Workers};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    rig::{App, Rig, admin, app_address, ask, proxy_address, until},
    status,
};

const ROUND_ROBIN: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
";

/// Far more than a retry budget has room for.
const MANY: usize = 60;

fn many(method: &'static str) -> Vec<JoinHandle<String>> {
    (0..MANY).map(|_| tokio::spawn(ask(method, "/", ""))).collect()
}

async fn all_are_answered(asked: Vec<JoinHandle<String>>) {
    for answer in asked {
        let answer = answer.await.unwrap();
        assert_eq!(status(&answer), "200", "{answer}");
    }
}

/// A proxy of `web-0` on threads of its own.
async fn alone(rig: &Rig, drain: Millis) -> (Proxy, Arc<Workers>) {
    let workers = Workers::start(1, "alone").unwrap();
    let mut bootstrap = rig.bootstrap("web-0");
    bootstrap.drain = drain;
    let proxy = rig.proxy_on(&workers, bootstrap, JoinToken::Once("token of web-0".to_owned())).await;
    (proxy, workers)
}

/// What the end of its process does to a proxy.
fn end(workers: Arc<Workers>) {
    let workers = Arc::into_inner(workers).expect("nobody else has them");
    tokio::task::block_in_place(|| workers.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_left_go_elsewhere_however_many_they_are() {
    let rig = Rig::start(ROUND_ROBIN, 2).await;
    let app = App::start("web-1", 200).await;
    let (_server, _client) = (rig.proxy("web-1").await, rig.proxy("client-0").await);
    // It takes connections and answers no handshake, until it is gone with all of them.
    let silent = TcpListener::bind((proxy_address("web-0"), 15008)).await.unwrap();
    let asked = many("POST");
    let mut held = Vec::new();
    while held.len() < MANY / 2 {
        held.push(timeout(Duration::from_secs(20), silent.accept()).await.expect("half of them").unwrap());
    }
    drop((silent, held));
    all_are_answered(asked).await;
    assert_eq!(app.count(), MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_answer_costs_nobody_a_request() {
    let rig = Rig::start(ROUND_ROBIN, 2).await;
    let app = App::start("web-1", 200).await;
    let (_server, _client) = (rig.proxy("web-1").await, rig.proxy("client-0").await);
    // Its queue is full, so that the kernel lets attempts to connect wait, as a pod does that is gone.
    let gone = TcpSocket::new_v4().unwrap();
    let address = SocketAddr::new(proxy_address("web-0"), 15008);
    gone.bind(address).unwrap();
    let _listening = gone.listen(1).unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    for method in ["POST", "GET"] {
        all_are_answered(many(method)).await;
    }
    assert_eq!(app.count(), 2 * MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_whose_connections_break_together_are_all_answered() {
    let rig = Rig::start(ROUND_ROBIN, 2).await;
    let stuck = App::slow("web-0", 200, Duration::from_secs(60)).await;
    let _app = App::start("web-1", 200).await;
    let (_killed, workers) = alone(&rig, Millis(5000)).await;
    let (_server, _client) = (rig.proxy("web-1").await, rig.proxy("client-0").await);
    let asked = many("GET");
    until("half of them are there", async || stuck.count() == MANY / 2).await;
    end(workers);
    all_are_answered(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_whose_application_ends_are_all_answered() {
    let rig = Rig::start(ROUND_ROBIN, 2).await;
    let app = App::start("web-1", 200).await;
    let _servers = (rig.proxy("web-0").await, rig.proxy("web-1").await);
    let _client = rig.proxy("client-0").await;
    // It reads requests and answers none, until it is gone with all of them; its proxy stays.
    let killed = TcpListener::bind((app_address("web-0"), 9080)).await.unwrap();
    let asked = many("GET");
    let mut held = Vec::new();
    while held.len() < MANY / 2 {
        let accepted = timeout(Duration::from_secs(20), killed.accept()).await.expect("half of them");
        let (mut stream, _) = accepted.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        held.push(stream);
    }
    drop((killed, held));
    all_are_answered(asked).await;
    assert_eq!(app.count(), MANY);
}

/// Pays until nobody is there any more; how many payments were answered.
async fn pay() -> usize {
    let mut paid = 0;
    loop {
        let answer = ask("POST", "/pay", "").await;
        match status(&answer) {
            "200" => paid += 1,
            // There is no other server.
            "503" => return paid,
            _ => panic!("{answer}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_ends_under_load_cuts_nothing_though_nobody_was_told() {
    let rig = Rig::start("", 1).await;
    let app = App::slow("web-0", 200, Duration::from_millis(30)).await;
    let (server, workers) = alone(&rig, Millis(2000)).await;
    let _client = rig.proxy("client-0").await;
    let payers: Vec<JoinHandle<usize>> = (0..8).map(|_| tokio::spawn(pay())).collect();
    until("they pay", async || app.count() > 8).await;
    server.stop().await;
    end(workers);
    let mut paid = 0;
    for payer in payers {
        paid += payer.await.unwrap();
    }
    assert_eq!(paid, app.count(), "a payment was taken and its answer lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hears_that_a_proxy_leaves_asks_another_one() {
    let rig = Rig::start(ROUND_ROBIN, 2).await;
    let (leaving, other) = (App::start("web-0", 200).await, App::start("web-1", 200).await);
    let (server, _other) = (rig.proxy("web-0").await, rig.proxy("web-1").await);
    let _client = rig.proxy("client-0").await;
    let stopping = tokio::spawn(server.stop());
    until("it drains", async || admin("web-0", "/ready").await.starts_with("DRAINING")).await;
    for _ in 0..MANY {
        let answer = ask("POST", "/", "").await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(!answer.to_lowercase().contains("x-leno-leaving"), "{answer}");
    }
    // It is asked again from time to time, for it may have come back.
    assert!(leaving.count() < MANY / 4, "{} requests", leaving.count());
    assert_eq!(leaving.count() + other.count(), MANY);
    stopping.await.unwrap();
}
