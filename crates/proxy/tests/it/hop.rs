//! What crosses between proxies and to servers without one: who is believed, what is told, which connections are used again.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::Bytes;
use leno_identity::{ExpectedPeers, IdentityStore, Trust, TrustBundle, WorkloadCertificate, client_config};
use leno_model::{Millis, TrustDomain};
use leno_proxy::proxy_protocol::{Dialled, encode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::rig::{App, Rig, WEB, ask, proxy_address, read_until, until};

/// A peer whose certificate is good and whose intentions are not.
async fn peer(rig: &Rig, alpn: &'static [u8]) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let read = |file: &str| std::fs::read(rig.folder.path().join("client-0").join(file)).unwrap();
    let certificate = WorkloadCertificate::from_pem(&read("chain.pem"), &read("key.pem")).unwrap();
    let roots = TrustBundle::from_pem(TrustDomain::default(), &read("roots.pem")).unwrap();
    let store = IdentityStore::with_certificate(Trust::new([roots]), certificate);
    let web = "spiffe://cluster.local/ns/default/sa/web".parse().unwrap();
    let config = client_config(&store, &ExpectedPeers::new([web]), &[alpn]);
    let stream =
        tokio::net::TcpStream::connect(SocketAddr::new(proxy_address("web-0"), 15008)).await.unwrap();
    let name = ServerName::try_from("outbound_.80_._.web.default.svc.cluster.local").unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let preface = r#"{"workload":"client-0","namespace":"default","canonical":["client","v1"],"app":["client","v1"],"cluster":"west","place":["",""],"idle":60000}"#;
    stream.write_all(b"LENO").await.unwrap();
    stream.write_u16(preface.len() as u16).await.unwrap();
    stream.write_all(preface.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_calls_its_requests_bytes_cannot_say_who_sends_them() {
    let rig = Rig::start("", 1).await;
    let _app = App::start("web-0", 200).await;
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    for alpn in [&b"leno-h1"[..], b"leno-tcp"] {
        let mut stream = peer(&rig, alpn).await;
        let forged = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\nx-forwarded-client-cert: URI=spiffe://cluster.local/ns/kube-system/sa/root\r\n\r\n";
        stream.write_all(forged.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{answer}");
        assert!(!answer.contains("kube-system"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_certificate_that_opened_it_and_no_request_is_lost() {
    let mut rig = Rig::start("", 1).await;
    rig.certificate_ttl = Millis(8_000);
    let app = App::start("web-0", 200).await;
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let mut stream = peer(&rig, b"leno-h1").await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let closed = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut all)).await.unwrap();
        all
    });
    // These renew: their connections come and go with the certificates.
    let mut paid = 0;
    while !closed.is_finished() {
        let answer = ask("POST", "/pay", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        paid += 1;
    }
    let answer = closed.await.expect("it ends by itself");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "its request was answered first");
    assert_eq!(app.count(), paid + 1);
}

fn tls(mode: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web}}
spec:
  host: web
  trafficPolicy: {{tls: {{mode: {mode}}}}}
---
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_connection_is_not_used_again_once_tls_is_asked_for() {
    let rig = Rig::start(&tls("DISABLE"), 1).await;
    let app = App::start("web-0", 200).await;
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let get = async || ask("GET", "/", "").await;
    assert!(get().await.starts_with("HTTP/1.1 200"));
    rig.write_manifests(&tls("SIMPLE"));
    // The workload's port speaks no TLS, so that every request that asks for it fails.
    until("TLS is asked for", async || get().await.starts_with("HTTP/1.1 503")).await;
    let before = app.count();
    for _ in 0..20 {
        assert!(get().await.starts_with("HTTP/1.1 503"));
    }
    assert_eq!(app.count(), before);
}

/// A server without proxy at the address of `web-0`: remembers heads, and answers each in the same way.
fn outsider(answer: &'static str) -> Arc<Mutex<Vec<String>>> {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind((proxy_address("web-0"), 9080)).unwrap();
    let seen = heads.clone();
    let serve = move |mut stream: TcpStream| {
        let mut byte = [0];
        while stream.peek(&mut byte).is_ok_and(|count| count > 0) {
            let head = read_until(&mut stream, "\r\n\r\n");
            let bodiless = head.contains("content-length: 0\r\n");
            seen.lock().unwrap().push(head);
            if !bodiless || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    heads
}

const FIVE_SECONDS: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{timeout: 5s, route: [{destination: {host: web}}]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_plaintext_is_told_nothing_and_believed_nothing() {
    let rig = Rig::start(&format!("{}{FIVE_SECONDS}", tls("DISABLE")), 1).await;
    let heads = outsider(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nx-leno-not-delivered: 1\r\nx-leno-overhead: 9\r\n\r\n",
    );
    let _client = rig.proxy("client-0").await;
    let answer = ask("POST", "/pay", "").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1, "a payment was sent again because the server said so: {heads:?}");
    assert!(!heads[0].contains("x-leno-"), "{heads:?}");
}

const MIRRORED: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route: [{destination: {host: web}}]
    mirror: {host: raw, port: {number: 7000}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_request_whose_body_fails_is_not_sent_without_it() {
    let rig = Rig::start(&format!("{}{MIRRORED}", tls("DISABLE")), 1).await;
    let heads = outsider("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let _client = rig.proxy("client-0").await;
    let mut stream =
        tokio::net::TcpStream::connect(SocketAddr::new(proxy_address("client-0"), 15001)).await.unwrap();
    let dialled = Dialled { source: "127.0.0.1:1".parse().unwrap(), destination: WEB.parse().unwrap() };
    stream.write_all(&encode(dialled)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut post = async |path: &str, length: &str, body: &'static [u8]| {
        let request = http::Request::post(format!("http://web{path}")).header("content-length", length);
        std::future::poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
        let (response, mut upload) = send.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
        if !body.is_empty() {
            upload.send_data(Bytes::from_static(body), true).unwrap();
        }
        response.await
    };
    for _ in 0..3 {
        // The connection to the server is kept, so that a request leaves as soon as it can.
        assert_eq!(post("/warm", "0", b"").await.unwrap().status(), 200);
    }
    assert!(post("/pay", "10", b"abc").await.is_err(), "it is three bytes and says that it is ten");
    assert_eq!(post("/after", "0", b"").await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let heads = heads.lock().unwrap();
    let paid =
        heads.iter().find(|head| head.starts_with("POST /pay") && head.contains("content-length: 0\r\n"));
    assert!(paid.is_none(), "{heads:?}");
    assert!(heads.iter().any(|head| head.starts_with("POST /after")), "{heads:?}");
}
