//! The load generator against a stand-in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::standin::proto::EchoRequest;
use crate::standin::{Dialer, ListenSpec, Running, StandIn, StandInProtocol, StandInSpec};

fn server() -> (Running, u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = ListenSpec { address, port_name: "http".into(), protocol: StandInProtocol::Auto };
    let spec = StandInSpec { name: "web-0".into(), listeners: vec![listen], ..StandInSpec::default() };
    let running = StandIn::start(spec, Dialer::to_addresses()).unwrap();
    let port = running.addresses()[0].1.port();
    (running, port)
}

async fn until(handle: &Handle, requests: u64) {
    while handle.snapshot().requests < requests {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn its_counts_equal_the_servers_over_every_protocol() {
    let (running, port) = server();
    let targets = vec![
        Target::get("127.0.0.1", port, "/"),
        Target::get_h2("127.0.0.1", port, "/h2"),
        Target::grpc("127.0.0.1", port, "/leno.standin.v1.Echo/Unary", &EchoRequest::default()),
    ];
    let handle = Load::start(Plan::new(1000.0, targets, Dialer::to_addresses())).unwrap();
    until(&handle, 300).await;
    let first = handle.cut_phase();
    until(&handle, 600).await;
    let total = handle.stop().await;
    let counters = running.stop(Duration::from_secs(5)).await.counters;
    assert_eq!((total.requests, total.failed), (counters.requests, 0), "{:?}", total.failures);
    assert_eq!(total.by_status["grpc 0"], counters.grpc_requests);
    assert_eq!(total.by_status["200"] + total.by_status["grpc 0"], total.requests);
    assert!(first.requests >= 300 && first.requests < total.requests);
    assert!(first.p50_ms > 0.0 && first.p50_ms <= first.p99_ms);
}

#[tokio::test]
async fn latency_runs_from_the_scheduled_moment_and_excess_is_overrun() {
    let (running, port) = server();
    let mut target = Target::get("127.0.0.1", port, "/?x-leno-delay=60ms");
    target.label = Some(Arc::new(|head, _| Some(head.status.to_string())));
    let plan = Plan {
        arrivals: Arrivals::Constant,
        max_in_flight: 4,
        ..Plan::new(200.0, vec![target], Dialer::to_addresses())
    };
    let handle = Load::start(plan).unwrap();
    until(&handle, 50).await;
    let total = handle.stop().await;
    let answered = running.stop(Duration::from_secs(5)).await.counters.requests;
    assert_eq!(total.by_status["200"], answered);
    assert_eq!(total.by_label["200 OK"], answered);
    assert_eq!(total.by_error["overrun"], total.failed);
    assert_eq!(total.requests, answered + total.failed);
    assert!(total.p50_ms >= 59.0, "{}", total.p50_ms);
    assert!(!total.failures.is_empty() && total.failures.len() <= 20);
}

#[tokio::test]
async fn failures_say_why() {
    let (running, port) = server();
    let targets =
        vec![Target::get("127.0.0.1", port, "/?x-leno-status=503"), Target::get("nowhere", 80, "/")];
    let handle = Load::start(Plan::new(500.0, targets, Dialer::to_addresses())).unwrap();
    until(&handle, 40).await;
    let total = handle.stop().await;
    running.stop(Duration::from_secs(5)).await;
    assert_eq!(total.failed, total.requests);
    assert_eq!(total.by_error["name"] + total.by_status["503"], total.requests);
    let mut numbers: Vec<_> = total.failures.iter().map(|failure| failure.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), total.failures.len(), "each has a number of its own");
    assert!(
        total.failures.iter().any(|failure| failure.reason == "name: no such service: nowhere"),
        "{:?}",
        total.failures
    );
}

#[tokio::test]
async fn a_pause_sends_nothing() {
    let (running, port) = server();
    let handle =
        Load::start(Plan::new(1000.0, vec![Target::get("127.0.0.1", port, "/")], Dialer::to_addresses()))
            .unwrap();
    until(&handle, 20).await;
    handle.pause();
    let mut seen = handle.snapshot().requests;
    // What is under way ends; then nothing moves.
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let requests = handle.snapshot().requests;
        if requests == seen {
            break;
        }
        seen = requests;
    }
    handle.resume();
    until(&handle, seen + 20).await;
    let total = handle.stop().await;
    assert_eq!(total.requests, running.stop(Duration::from_secs(5)).await.counters.requests);
}
