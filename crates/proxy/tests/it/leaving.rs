//! Endpoints that leave, with and without a word: what callers notice of it.

use std::{sync::Arc, time::Duration};

use leno_model::Millis;
use leno_proxy::{JoinToken, Proxy, Workers};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use crate::{
    rig::{App, Rig, ask, proxy_address, until},
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
