//! What is open: it ends when policy would refuse it, and a drain waits for it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::rig::{RAW, Rig, WEB, app_address, dial, is_closed, read_until, until};

const NOBODY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: [/stream, /chat]}}]}]
";

/// An application that answers each connection's first request by `answer`.
fn serve(port: u16, answer: impl Fn(TcpStream, String) + Send + Sync + 'static) {
    let listener = TcpListener::bind((app_address("web-0"), port)).unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let head = read_until(&mut stream, "\r\n\r\n");
                answer(stream, head);
            });
        }
    });
}

/// Chunks until the other end is gone.
fn stream_for_ever(mut stream: TcpStream, _: String) {
    let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    while sent.is_ok() {
        sent = stream.write_all(b"4\r\ntick\r\n");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Echoes whatever comes after the change of protocols.
fn echo_websocket(mut stream: TcpStream, head: String) {
    assert!(head.contains("upgrade: websocket"), "{head}");
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(switched.as_bytes()).unwrap();
    let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
    let _ = std::io::copy(&mut from, &mut to);
}

fn ask_for(path: &str, extra: &str) -> TcpStream {
    let mut stream = dial(WEB);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: web\r\n{extra}\r\n").unwrap();
    stream
}

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_streams_is_cut_when_a_new_policy_would_refuse_its_request() {
    let rig = Rig::start("", 1).await;
    serve(9080, stream_for_ever);
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let open = tokio::task::spawn_blocking(|| {
        let (mut stream, mut other) = (ask_for("/stream", ""), ask_for("/allowed", ""));
        read_until(&mut stream, "tick\r\n");
        read_until(&mut other, "tick\r\n");
        (stream, other)
    });
    let (mut stream, mut other) = open.await.unwrap();
    rig.write_manifests(NOBODY);
    let ended = tokio::task::spawn_blocking(move || {
        assert!(is_closed(&mut stream), "the stream goes on");
        read_until(&mut other, "tick\r\n");
    });
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the stream is cut").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_cut_when_a_new_policy_would_refuse_its_request() {
    let rig = Rig::start("", 1).await;
    serve(9080, echo_websocket);
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let open = tokio::task::spawn_blocking(|| {
        let (mut chat, mut other) = (ask_for("/chat", UPGRADE), ask_for("/other", UPGRADE));
        for stream in [&mut chat, &mut other] {
            assert!(read_until(stream, "\r\n\r\n").starts_with("HTTP/1.1 101"));
            stream.write_all(b"one").unwrap();
            read_until(stream, "one");
        }
        (chat, other)
    });
    let (mut chat, mut other) = open.await.unwrap();
    rig.write_manifests(NOBODY);
    let ended = tokio::task::spawn_blocking(move || {
        assert!(is_closed(&mut chat), "the tunnel goes on");
        other.write_all(b"two").unwrap();
        read_until(&mut other, "two");
    });
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the tunnel is cut").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_answer_is_refused_when_a_new_policy_says_so() {
    let rig = Rig::start("", 1).await;
    let asked = Arc::new(AtomicBool::new(false));
    let seen = asked.clone();
    serve(9080, move |_stream, _| {
        seen.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_secs(60));
    });
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let waiting = tokio::task::spawn_blocking(|| read_until(&mut ask_for("/stream", ""), "\r\n\r\n"));
    until("the application has the request", async || asked.load(Ordering::Relaxed)).await;
    rig.write_manifests(NOBODY);
    let answer = waiting.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("x-leno-denial: "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_response_that_streams() {
    let rig = Rig::start("", 1).await;
    serve(9080, |mut stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for _ in 0..15 {
            stream.write_all(b"4\r\ntick\r\n").unwrap();
            thread::sleep(Duration::from_millis(200));
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let (server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let whole = Arc::new(AtomicBool::new(false));
    let (seen, mut stream) = (whole.clone(), tokio::task::block_in_place(|| ask_for("/", "")));
    tokio::task::block_in_place(|| read_until(&mut stream, "tick\r\n"));
    let reading = tokio::task::spawn_blocking(move || {
        read_until(&mut stream, "0\r\n\r\n");
        seen.store(true, Ordering::Relaxed);
    });
    server.stop().await;
    // Its process would end here.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(whole.load(Ordering::Relaxed), "the proxy has ended before the response");
    reading.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_tunnel_that_is_in_use() {
    let rig = Rig::start("", 1).await;
    serve(9080, echo_websocket);
    let (server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let mut chat = tokio::task::block_in_place(|| {
        let mut chat = ask_for("/chat", UPGRADE);
        read_until(&mut chat, "\r\n\r\n");
        chat
    });
    let talking = Arc::new(AtomicBool::new(true));
    let still = talking.clone();
    let talk = tokio::task::spawn_blocking(move || {
        for _ in 0..15 {
            chat.write_all(b"one").unwrap();
            read_until(&mut chat, "one");
            thread::sleep(Duration::from_millis(200));
        }
        still.store(false, Ordering::Relaxed);
    });
    server.stop().await;
    assert!(!talking.load(Ordering::Relaxed), "the proxy has ended in the middle of a conversation");
    talk.await.unwrap();
}

const ONE_CONNECTION: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: raw}
spec:
  host: raw
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, connectTimeout: 1s}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_connections_holds_for_bytes() {
    let rig = Rig::start(ONE_CONNECTION, 1).await;
    let listener = TcpListener::bind((app_address("web-0"), 7000)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let over = tokio::task::spawn_blocking(|| {
        let mut first = dial(RAW);
        first.write_all(b"one").unwrap();
        read_until(&mut first, "one");
        let mut second = dial(RAW);
        let refused = is_closed(&mut second);
        drop(first);
        let again = (0..200).any(|_| {
            let mut third = dial(RAW);
            let mut answer = [0; 3];
            thread::sleep(Duration::from_millis(10));
            third.write_all(b"two").is_ok() && third.read_exact(&mut answer).is_ok()
        });
        (refused, again)
    });
    assert_eq!(over.await.unwrap(), (true, true), "(the second is refused, its place is free again)");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_connections_holds_for_tunnels() {
    let rig = Rig::start(ONE_CONNECTION, 1).await;
    serve(9080, echo_websocket);
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let answers = tokio::task::spawn_blocking(|| {
        let mut first = ask_for("/chat", UPGRADE);
        let one = read_until(&mut first, "\r\n\r\n");
        let two = read_until(&mut ask_for("/chat", UPGRADE), "\r\n\r\n");
        (one, two)
    });
    let (one, two) = answers.await.unwrap();
    assert!(one.starts_with("HTTP/1.1 101"), "{one}");
    assert!(two.starts_with("HTTP/1.1 503"), "{two}");
}
