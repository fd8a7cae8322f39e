//! A gateway's connections: policies reach them whatever they carry, and a listener that changes takes its leave back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use leno_identity::{PlainTrust, plain_client_config};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::rig::{App, EDGE, Rig, admin, app_address, is_closed, proxy_address, read_until, until};

const RAW_GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge-9}
spec:
  gatewayClassName: istio
  listeners: [{name: raw, port: 7070, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: raw}
spec:
  parentRefs: [{name: edge-9}]
  rules: [{backendRefs: [{name: raw, port: 7000}]}]
---
";

const NOT_FROM_HERE: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-from-here}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge-9}]
  action: DENY
  rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]
";

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((proxy_address(EDGE), port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Whether a gateway's TCP port echoes.
fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 3];
    stream.write_all(b"one").is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_of_a_gateway_hold_for_bytes_and_reach_open_connections() {
    let rig = Rig::start(RAW_GATEWAY, 1).await;
    let listener = TcpListener::bind((app_address("web-0"), 7000)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    let (_server, _edge) = (rig.proxy("web-0").await, rig.proxy(EDGE).await);
    let reached = async || tokio::task::spawn_blocking(|| echoes(&mut connect(7070))).await.unwrap();
    until("the gateway leads to the application", reached).await;
    let mut open = tokio::task::block_in_place(|| connect(7070));
    assert!(tokio::task::block_in_place(|| echoes(&mut open)));
    rig.write_manifests(&format!("{RAW_GATEWAY}{NOT_FROM_HERE}"));
    let refused = async || tokio::task::spawn_blocking(|| !echoes(&mut connect(7070))).await.unwrap();
    until("the policy is in force", refused).await;
    assert!(tokio::task::block_in_place(|| is_closed(&mut open)), "what was open stays open");
}

/// Two listeners of one port: `a`, which may be left out, and one for `b.test`.
fn two_listeners(secrets: &str, a: &str) -> String {
    format!(
        "{secrets}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {EDGE}}}
spec:
  gatewayClassName: istio
  listeners:
{a}  - name: b
    port: 7443
    protocol: HTTPS
    hostname: b.test
    tls: {{certificateRefs: [{{name: certificate}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: {EDGE}}}]
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
---
"
    )
}

const LISTENER_A: &str = "  - name: a
    port: 7443
    protocol: HTTPS
    hostname: a.test
    tls: {certificateRefs: [{name: certificate}]}
";

fn secret() -> String {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned(), "b.test".to_owned()]).unwrap();
    let indented = |pem: String| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: certificate}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(made.cert.pem()),
        indented(made.signing_key.serialize_pem())
    )
}

async fn tls(name: &'static str) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let config = plain_client_config(PlainTrust::Unverified, &[], None, &[]).unwrap();
    let stream = tokio::net::TcpStream::connect(SocketAddr::new(proxy_address(EDGE), 7443)).await?;
    TlsConnector::from(Arc::clone(&config)).connect(ServerName::try_from(name).unwrap(), stream).await
}

async fn status_of(stream: &mut TlsStream<tokio::net::TcpStream>, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8_lossy(&answer).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_listener_is_gone_reaches_no_other_listener() {
    let secret = secret();
    let rig = Rig::start(&two_listeners(&secret, LISTENER_A), 1).await;
    let _app = App::start("web-0", 200).await;
    let (_server, _edge) = (rig.proxy("web-0").await, rig.proxy(EDGE).await);
    until("the listener serves", async || tls("a.test").await.is_ok()).await;
    let mut open = tls("a.test").await.unwrap();
    assert_eq!(status_of(&mut open, "a.test").await, "200");
    assert_eq!(status_of(&mut open, "b.test").await, "421");
    rig.write_manifests(&two_listeners(&secret, ""));
    until("the listener is gone", async || tls("a.test").await.is_err()).await;
    assert_eq!(status_of(&mut open, "b.test").await, "421");
    assert_eq!(status_of(&mut open, "a.test").await, "421");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_refused_and_an_offer_of_h2c_is_not_passed_on() {
    const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge-9}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 7080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge-9}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
";
    let rig = Rig::start(GATEWAY, 1).await;
    let app = App::start("web-0", 200).await;
    let (_server, _edge) = (rig.proxy("web-0").await, rig.proxy(EDGE).await);
    let answer = async |request: &'static str| {
        let ask = move || {
            let mut stream = connect(7080);
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    };
    let plain = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    until("the gateway leads to the application", async || answer(plain).await.starts_with("HTTP/1.1 200"))
        .await;
    let before = app.count();
    let connect = "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\nconnection: close\r\n\r\n";
    assert!(answer(connect).await.starts_with("HTTP/1.1 405"));
    assert_eq!(app.count(), before, "the application has seen it");
    let offer = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
    let seen = answer(offer).await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{seen}");
    // What a client names in `Connection` is gone before anything is decided, not after.
    let mut stream = tokio::task::block_in_place(|| self::connect(7080));
    tokio::task::block_in_place(|| {
        stream
            .write_all(
                b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: x-forwarded-for, x-mine\r\nx-mine: 1\r\n\r\n",
            )
            .unwrap();
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_forwarded_is_its_clients_fault_and_no_endpoints() {
    const GATEWAY: &str = "
apiVersion: v1
kind: Service
metadata: {name: rpc}
spec:
  selector: {app: web}
  ports: [{name: http2, port: 80, targetPort: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge-9}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 7080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rpc}
spec:
  parentRefs: [{name: edge-9}]
  rules: [{backendRefs: [{name: rpc, port: 80}]}]
---
";
    let rig = Rig::start(GATEWAY, 1).await;
    let listener = tokio::net::TcpListener::bind((app_address("web-0"), 9090)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = server.accept().await {
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            });
        }
    });
    let (_server, _edge) = (rig.proxy("web-0").await, rig.proxy(EDGE).await);
    let answer = async |request: &'static str| {
        let ask = move || {
            let mut stream = connect(7080);
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    };
    let good = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    until("the gateway leads to the application", async || answer(good).await.starts_with("HTTP/1.1 200"))
        .await;
    // HTTP/2 asks for an authority, and HTTP/1.0 does not.
    let nameless = answer("GET / HTTP/1.0\r\n\r\n").await;
    assert!(nameless.starts_with("HTTP/1.1 400"), "{nameless}");
    let clusters = admin(EDGE, "/clusters").await;
    assert!(clusters.contains("\"avoided_for_ms\": 0"), "{clusters}");
    assert!(
        !clusters.lines().any(|line| line.contains("avoided_for_ms") && !line.contains(": 0")),
        "{clusters}"
    );
}

/// Serves both versions of HTTP, and says in the status which: 200 for HTTP/1.1, 202 for HTTP/2.
async fn serve_both(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut first = [0; 3];
            stream.peek(&mut first).await.unwrap();
            if &first != b"PRI" {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await
                    .unwrap();
                return;
            }
            let mut server = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = server.accept().await {
                let response = http::Response::builder().status(202).body(()).unwrap();
                let _ = respond.send_response(response, true);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_negotiated_with_the_gateway_says_nothing_of_the_backend() {
    let undeclared = "apiVersion: v1
kind: Service
metadata: {name: undeclared}
spec:
  selector: {app: web}
  ports: [{name: main, port: 80, targetPort: 9090}]
---
";
    let gateway =
        two_listeners(&secret(), LISTENER_A).replace("{name: web, port: 80}", "{name: undeclared, port: 80}");
    let rig = Rig::start(&format!("{undeclared}{gateway}"), 1).await;
    let listener = tokio::net::TcpListener::bind((app_address("web-0"), 9090)).await.unwrap();
    tokio::spawn(serve_both(listener));
    let (_server, _edge) = (rig.proxy("web-0").await, rig.proxy(EDGE).await);
    let status = async |content_type: &str| {
        let config = plain_client_config(PlainTrust::Unverified, &[], None, &[b"h2"]).unwrap();
        let stream = tokio::net::TcpStream::connect(SocketAddr::new(proxy_address(EDGE), 7443)).await?;
        let name = ServerName::try_from("a.test").unwrap();
        let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await?;
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::post("https://a.test/").header("content-type", content_type).body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        std::io::Result::Ok(response.await.unwrap().status().as_u16())
    };
    until("the gateway leads to the application", async || {
        status("text/plain").await.is_ok_and(|it| it < 300)
    })
    .await;
    assert_eq!(status("text/plain").await.unwrap(), 200, "the backend may speak HTTP/1.1 only");
    assert_eq!(status("application/grpc").await.unwrap(), 202, "gRPC exists in HTTP/2 only");
}
