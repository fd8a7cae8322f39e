//! Stand-ins over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tonic::Code;
use tonic::body::Body;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

use super::client::{Channel, Client, Endpoint, ReplyBody};
use super::proto::EchoRequest;
use super::proto::echo_client::EchoClient;
use super::*;

const GRACE: Duration = Duration::from_secs(5);

fn spec(name: &str, protocol: StandInProtocol) -> StandInSpec {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    StandInSpec {
        name: format!("{name}-v1-0"),
        namespace: "shop".into(),
        service_account: name.into(),
        app: name.into(),
        version: "v1".into(),
        listeners: vec![ListenSpec { address, port_name: "http".into(), protocol }],
        ..StandInSpec::default()
    }
}

fn started(spec: StandInSpec) -> (Running, SocketAddr) {
    let running = StandIn::start(spec, Dialer::to_addresses()).unwrap();
    let address = running.addresses()[0].1;
    (running, address)
}

fn call(name: &str, target: SocketAddr, protocol: CallProtocol) -> CallSpec {
    CallSpec { name: name.into(), target: target.to_string(), protocol, path: "/".into() }
}

fn endpoint(address: SocketAddr, http2: bool) -> Endpoint {
    Endpoint { host: address.ip().to_string(), port: address.port(), http2 }
}

fn channel(address: SocketAddr) -> Channel {
    let client = Client::new(Dialer::to_addresses(), 4);
    Channel::new(client, endpoint(address, true), address.to_string().parse().unwrap())
}

async fn request(
    address: SocketAddr,
    http2: bool,
    request: http::request::Builder,
    body: &'static [u8],
) -> http::Response<ReplyBody> {
    let client = Client::new(Dialer::to_addresses(), 4);
    let request =
        request.header("te", "trailers").body(Body::new(Full::new(Bytes::from_static(body)))).unwrap();
    client.send(&endpoint(address, http2), request).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, Value) {
    let response = request(address, false, Request::get(path).header("host", "x"), b"").await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn http1_and_h2c_are_answered_on_one_port() {
    let (running, address) = started(spec("web", StandInProtocol::Auto));
    let (status, answer) = get(address, "/a/b").await;
    assert_eq!(
        (status, &answer["protocol"], &answer["pod"]),
        (StatusCode::OK, &"http/1.1".into(), &"web-v1-0".into())
    );
    let response = request(address, true, Request::get(format!("http://{address}/a")), b"").await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&answer["protocol"], &answer["path"]), (&"h2".into(), &"/a".into()));
    assert_eq!(running.stop(GRACE).await.counters.requests, 2);
}

#[tokio::test]
async fn a_request_steers_its_answer() {
    let (running, address) = started(spec("web", StandInProtocol::Auto));
    assert_eq!(get(address, "/?x-leno-status=503").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (_, answer) = get(address, "/?x-leno-body-bytes=1000&x-leno-echo=true").await;
    assert_eq!(answer["padding"].as_str().unwrap().len(), 1000);
    assert_eq!(answer["request"]["headers"]["host"], "x");
    assert_eq!(get(address, "/healthz").await.0, StatusCode::OK);
    let counters = running.stop(GRACE).await.counters;
    assert_eq!((counters.requests, counters.health_checks, counters.by_status[&503]), (2, 1, 1));
}

#[tokio::test]
async fn a_numbered_request_is_noted_before_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("web");
    let noting = StandInSpec { notes: Some(notes.clone()), ..spec("web", StandInProtocol::Auto) };
    let (running, address) = started(noting);
    let numbered = Request::post("/?x-leno-delay=60s").header("host", "x").header("request-number", "7");
    let unanswered = tokio::spawn(async move { request(address, false, numbered, b"").await });
    while std::fs::read_to_string(&notes).unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!unanswered.is_finished());
    unanswered.abort();
    get(address, "/without-a-number").await;
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "POST 7\n");
    running.stop(GRACE).await;
}

#[tokio::test]
async fn echo_streams_the_body_back_with_trailers() {
    let (running, address) = started(spec("web", StandInProtocol::Auto));
    for (http2, uri) in [(false, "/echo".to_owned()), (true, format!("http://{address}/echo"))] {
        let mut builder = Request::post(uri);
        if !http2 {
            builder = builder.header("host", "x");
        }
        let body = request(address, http2, builder, b"hello").await.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-echoed-bytes"], "5");
        assert_eq!(body.to_bytes(), "hello");
    }
    assert!(running.stop(GRACE).await.in_time);
}

#[tokio::test]
async fn grpc_health_echo_and_reflection_are_served() {
    let (running, address) = started(spec("cart", StandInProtocol::Auto));
    let mut echo = EchoClient::new(channel(address));
    let message = |text: &str| EchoRequest { message: text.into(), repeat: 3, ..EchoRequest::default() };
    let mut asked = tonic::Request::new(message("hi"));
    asked.metadata_mut().insert("end-user", "jason".parse().unwrap());
    let answer = echo.unary(asked).await.unwrap().into_inner();
    assert_eq!((answer.message.as_str(), answer.server.as_str()), ("hi", "cart-v1-0"));
    assert_eq!(answer.metadata["end-user"], "jason");
    let answers = echo.server_stream(message("s")).await.unwrap().into_inner();
    assert_eq!(answers.map(|answer| answer.unwrap().count).collect::<Vec<_>>().await, [1, 2, 3]);
    let three = || futures_util::stream::iter([message("a"), message("b"), message("c")]);
    let answer = echo.client_stream(three()).await.unwrap().into_inner();
    assert_eq!((answer.message.as_str(), answer.count), ("c", 3));
    let answers = echo.bidi(three()).await.unwrap().into_inner();
    assert_eq!(answers.map(|answer| answer.unwrap().message).collect::<Vec<_>>().await, ["a", "b", "c"]);
    let refused = echo.unary(EchoRequest { status_code: 7, ..message("") }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let healthy = HealthClient::new(channel(address)).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(healthy.into_inner().status, 1);
    assert_eq!(
        services(address).await,
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "leno.standin.v1.Echo"]
    );
    drop(echo);
    assert!(running.stop(GRACE).await.in_time);
}

async fn services(address: SocketAddr) -> Vec<String> {
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = futures_util::stream::iter([list]);
    let mut client = ServerReflectionClient::new(channel(address));
    let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let mut names: Vec<_> = service.into_iter().map(|service| service.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_unknown_grpc_service_is_unimplemented() {
    let (running, address) = started(spec("cart", StandInProtocol::Auto));
    let asked = Request::post(format!("http://{address}/hipstershop.CartService/GetCart"));
    let response =
        request(address, true, asked.header("content-type", "application/grpc"), b"\0\0\0\0\0").await;
    assert_eq!(response.headers()["grpc-status"], "12");
    drop(response);
    running.stop(GRACE).await;
}

#[tokio::test]
async fn a_websocket_echoes_messages() {
    let (running, address) = started(spec("web", StandInProtocol::Auto));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, response) =
        tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    let stopping = tokio::spawn(running.stop(GRACE));
    assert!(socket.next().await.unwrap().unwrap().is_close());
    while let Some(Ok(_)) = socket.next().await {}
    assert!(stopping.await.unwrap().in_time);
}

#[tokio::test]
async fn tcp_echoes_with_half_close_and_a_server_may_speak_first() {
    let (running, address) = started(spec("db", StandInProtocol::TcpServerFirst("220 ready\r\n".into())));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut banner = [0; 11];
    stream.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "ping");
    assert!(running.stop(GRACE).await.in_time);
}

#[tokio::test]
async fn a_request_walks_the_graph_over_every_protocol() {
    let (redis, redis_at) = started(spec("redis", StandInProtocol::Tcp));
    let mut cart = spec("cart", StandInProtocol::Auto);
    cart.calls = vec![call("REDIS_ADDR", redis_at, CallProtocol::Tcp)];
    let (cart, cart_at) = started(cart);
    let mut front = spec("front", StandInProtocol::Auto);
    front.calls = vec![
        call("CART_ADDR", cart_at, CallProtocol::Grpc),
        call("CART_URL", cart_at, CallProtocol::Http),
        CallSpec { target: "assistant:80".into(), ..call("NO_ADDR", cart_at, CallProtocol::Http) },
    ];
    let (front, front_at) = started(front);
    let (status, answer) = get(front_at, "/").await;
    assert_eq!(status, StatusCode::OK);
    let calls = answer["calls"].as_array().unwrap();
    for (index, protocol) in [(0, "grpc 0"), (1, "200")] {
        assert_eq!(calls[index]["status"], protocol, "{answer}");
        assert_eq!(calls[index]["workload"], "cart-v1-0");
        assert_eq!(calls[index]["calls"][0]["status"], "ok", "{answer}");
    }
    assert_eq!(calls[2]["error"], "no such service: assistant");
    let counters = front.stop(GRACE).await.counters;
    assert_eq!((counters.calls["NO_ADDR"].failed, counters.calls["CART_ADDR"].succeeded), (1, 1));
    assert!(cart.stop(GRACE).await.in_time);
    assert!(redis.stop(GRACE).await.in_time);
}

#[tokio::test]
async fn the_hop_limit_ends_a_cycle() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut ring = spec("ring", StandInProtocol::Auto);
    ring.listeners[0].address = address;
    ring.calls = vec![call("SELF_ADDR", address, CallProtocol::Http)];
    let (running, address) = started(ring);
    assert_eq!(get(address, "/").await.0, StatusCode::OK);
    assert_eq!(running.stop(GRACE).await.counters.requests, 9, "the request and eight hops");
}

#[tokio::test]
async fn a_graceful_stop_loses_no_request() {
    let (running, address) = started(spec("web", StandInProtocol::Auto));
    let worker = |http2: bool| async move {
        let client = Client::new(Dialer::to_addresses(), 1);
        let mut answered = 0_u64;
        loop {
            let uri = if http2 {
                format!("http://{address}/?x-leno-delay=1ms")
            } else {
                "/?x-leno-delay=1ms".into()
            };
            let mut asked = Request::get(uri).body(Body::empty()).unwrap();
            if !http2 {
                asked.headers_mut().insert("host", "x".parse().unwrap());
            }
            let response = match client.send(&endpoint(address, http2), asked).await {
                Ok(response) => response,
                Err(client::SendError::NotBegun(_)) => continue,
                // After GOAWAY the next request needs a new connection, which is refused: it never began.
                Err(client::SendError::Dial(_)) if answered > 0 => return answered,
                Err(error) => panic!("lost after {answered}: {}", calls::chain(&error)),
            };
            assert_eq!(response.status(), StatusCode::OK);
            let last = response.headers().get("connection").is_some_and(|value| value == "close");
            response.into_body().collect().await.unwrap();
            answered += 1;
            if last {
                return answered;
            }
        }
    };
    let workers: Vec<_> = (0..32).map(|index| tokio::spawn(worker(index % 2 == 0))).collect();
    while running.counters().requests < 500 {
        tokio::task::yield_now().await;
    }
    let stopped = running.stop(GRACE).await;
    let mut answered = 0;
    for worker in workers {
        answered += worker.await.unwrap();
    }
    assert!(stopped.in_time);
    assert_eq!(answered, stopped.counters.requests);
}

#[tokio::test]
async fn a_failed_call_is_tried_again_and_may_fail_the_answer() {
    let (callee, callee_at) = started(spec("callee", StandInProtocol::Auto));
    let mut caller = spec("caller", StandInProtocol::Auto);
    let text = format!(
        "workloads: [{{app: caller, behaviour: {{failWhenCallsFail: true, paths: [{{path: /x, calls: \
         [{{target: '{callee_at}', path: '/?x-leno-status=500', tries: 2}}]}}]}}}}]"
    );
    caller.behaviour = BehaviourFile::parse(&text).unwrap().for_workload("shop", "caller", "v1");
    let (caller, caller_at) = started(caller);
    let (status, answer) = get(caller_at, "/x").await;
    assert_eq!((status, &answer["calls"][0]["tries"]), (StatusCode::BAD_GATEWAY, &2.into()));
    caller.stop(GRACE).await;
    assert_eq!(callee.stop(GRACE).await.counters.by_status[&500], 2);
}

#[tokio::test]
async fn a_dial_through_a_proxy_starts_with_the_virtual_address() {
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut names = ClusterNames::new("cluster.local");
    names.insert("cart", "shop", [10, 0, 0, 9].into());
    let resolver = std::sync::Arc::new(names).resolver("shop");
    let dialer =
        Dialer::through_proxy(proxy.local_addr().unwrap(), resolver).from_source([127, 0, 0, 7].into());
    let (dialled, accepted) = tokio::join!(dialer.dial("cart", 7070), proxy.accept());
    let (_dialled, (mut accepted, from)) = (dialled.unwrap(), accepted.unwrap());
    let mut header = [0; 28];
    accepted.read_exact(&mut header).await.unwrap();
    assert_eq!(from.ip(), std::net::IpAddr::from([127, 0, 0, 7]));
    assert_eq!(header.to_vec(), dial::proxy_header(from, "10.0.0.9:7070".parse().unwrap()));
}
