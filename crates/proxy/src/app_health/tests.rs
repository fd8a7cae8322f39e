//! Probes against small applications that answer as they are told to.

use std::{convert::Infallible, net::Ipv4Addr};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::*;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn probe(text: &str) -> Probe {
    serde_json::from_str(text).unwrap()
}

/// An application that answers by path and says in a header what it was asked.
async fn application() -> u16 {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(http1::Builder::new().serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| async move { Ok::<_, Infallible>(answer(&request, port)) }),
            ));
        }
    });
    port
}

fn answer(request: &Request<Incoming>, port: u16) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let well = |yes: bool| if yes { 200 } else { 503 };
    let mut response = Response::builder();
    let status = match request.uri().path() {
        "/well" => 200,
        "/ill" => 503,
        "/headers" => well(
            header("host") == "app.example"
                && header("x-probe") == "yes"
                && header("user-agent") == "kube-probe/1.34",
        ),
        "/query" => well(request.uri().query() == Some("deep=1")),
        "/host" => well(header("host") == format!("127.0.0.1:{port}")),
        "/here" => {
            response = response.header("location", "/ill");
            302
        }
        "/elsewhere" => {
            response = response.header("location", "http://elsewhere.example/ill");
            302
        }
        "/round" => {
            response = response.header("location", "/round");
            302
        }
        _ => 404,
    };
    response.status(status).body(Full::new(Bytes::new())).unwrap()
}

async fn get(port: u16, path: &str, more: &str) -> Result<(), String> {
    let text = format!(r#"{{"httpGet": {{"path": "{path}", "port": {port}{more}}}, "timeoutSeconds": 5}}"#);
    probe(&text).ask(POD, Some("kube-probe/1.34")).await
}

#[tokio::test]
async fn pages_are_asked_for_as_the_kubelet_does() {
    let port = application().await;
    assert_eq!(get(port, "/well", "").await, Ok(()));
    assert_eq!(get(port, "well", "").await, Ok(()), "a path without its slash");
    assert_eq!(get(port, "/ill", "").await, Err("status 503".to_owned()));
    assert_eq!(get(port, "/query?deep=1", "").await, Ok(()));
    assert_eq!(get(port, "/host", "").await, Ok(()));
    let headers =
        r#", "httpHeaders": [{"name": "Host", "value": "app.example"}, {"name": "X-Probe", "value": "yes"}]"#;
    assert_eq!(get(port, "/headers", headers).await, Ok(()));
    assert_eq!(get(port, "/headers", "").await, Err("status 503".to_owned()));
}

#[tokio::test]
async fn redirects_are_followed_within_the_host_only() {
    let port = application().await;
    assert_eq!(get(port, "/here", "").await, Err("status 503".to_owned()));
    assert_eq!(get(port, "/elsewhere", "").await, Ok(()), "as to the kubelet, which warns");
    assert!(get(port, "/round", "").await.unwrap_err().contains("redirects"));
}

#[tokio::test]
async fn a_port_that_takes_connections_is_well_and_one_that_does_not_is_not() {
    let port = application().await;
    let ask =
        async |port: u16| probe(&format!(r#"{{"tcpSocket": {{"port": {port}}}}}"#)).ask(POD, None).await;
    assert_eq!(ask(port).await, Ok(()));
    let closed = TcpListener::bind((POD, 0)).await.unwrap().local_addr().unwrap().port();
    assert!(ask(closed).await.unwrap_err().contains("does not take connections"));
}

#[tokio::test]
async fn silence_fails_at_the_probes_own_deadline() {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = probe(&format!(r#"{{"httpGet": {{"port": {port}}}}}"#));
    assert_eq!(silent.ask(POD, None).await, Err("no answer within 1s".to_owned()));
}

#[tokio::test]
async fn https_is_asked_whatever_the_certificate() {
    // A server that speaks no TLS fails the handshake, so HTTPS is really spoken.
    let port = application().await;
    let failed = get(port, "/well", r#", "scheme": "HTTPS""#).await.unwrap_err();
    assert!(failed.contains("handshake"), "{failed}");
}

#[tokio::test]
async fn a_grpc_service_must_be_serving() {
    for (state, well) in [(1_u8, true), (2, false)] {
        let listener = TcpListener::bind((POD, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { serve_health(listener.accept().await.unwrap().0, state).await });
        let grpc =
            probe(&format!(r#"{{"grpc": {{"port": {port}, "service": "cart"}}, "timeoutSeconds": 5}}"#));
        let answered = grpc.ask(POD, Some("kube-probe/1.34")).await;
        assert_eq!(answered.is_ok(), well, "{answered:?}");
        if !well {
            assert!(answered.unwrap_err().contains("\"cart\" is not serving"));
        }
    }
}

/// HealthCheckRequests for "cart", answered with a state.
async fn serve_health(stream: TcpStream, state: u8) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
        // Apart, because accepting is what drives the connection.
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let body = request.body_mut().data().await.unwrap().unwrap();
            assert_eq!(&body[..], b"\0\0\0\0\x06\x0a\x04cart");
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, state]), false).unwrap();
            let mut trailers = ::http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        });
    }
}

#[tokio::test]
async fn a_server_that_is_no_http_fails() {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(
        async move { listener.accept().await.unwrap().0.write_all(b"220 hello\r\n").await.unwrap() },
    );
    assert!(get(port, "/well", "").await.is_err());
}

#[test]
fn probes_are_read_as_they_stand_in_pods_and_what_is_unknown_is_refused() {
    let read = probe(
        r#"{"httpGet": {"path": "/h", "port": 80, "scheme": "HTTPS"}, "periodSeconds": 3, "failureThreshold": 2}"#,
    );
    assert_eq!(read.timeout, Duration::from_secs(1), "Kubernetes' default");
    let again: Probe = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
    assert_eq!(again, read);
    for bad in [
        r#"{}"#,
        r#"{"exec": {"command": ["true"]}}"#,
        r#"{"httpGet": {"port": 1}, "grpc": {"port": 1}}"#,
        r#"{"httpGet": {"port": "http"}}"#,
    ] {
        assert!(serde_json::from_str::<Probe>(bad).is_err(), "{bad}");
    }
}
