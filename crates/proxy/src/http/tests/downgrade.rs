//! What HTTP/2 lets through and HTTP/1.1 reads in another way: it must be refused, because policy judges what came.

use ::h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Uri};
use proptest::prelude::*;

use super::*;

async fn raw_h2(io: DuplexStream) -> SendRequest<Bytes> {
    let (send, connection) = ::h2::client::handshake(io).await.unwrap();
    spawn_local(connection);
    send
}

/// The status of a request with one more field, sent with HTTP/2 to a handler that answers 200.
async fn status_of(uri: &str, name: &'static str, value: &[u8]) -> u16 {
    let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), describe);
    let mut send = raw_h2(io).await;
    let mut request = Request::new(());
    *request.uri_mut() = Uri::try_from(uri).unwrap();
    request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
    let (response, _) = send.send_request(request, true).unwrap();
    response.await.unwrap().status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_value_that_http_1_1_would_trim_is_refused() {
    locally(async {
        for value in [&b" admin"[..], b"admin ", b"\tadmin", b"admin\t", b" "] {
            assert_eq!(status_of("http://a.test/", "x-role", value).await, 400, "{value:?}");
        }
        for value in [&b"admin"[..], b"", b"a b", b"\xe9"] {
            assert_eq!(status_of("http://a.test/", "x-role", value).await, 200, "{value:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_authority_is_held_to_the_same_form_as_with_http_1_1() {
    locally(async {
        for host in ["a.test/b", "u@a.test", "a b", "a.test:x", "a.test:99999", "a.test:", ":80", ""] {
            assert_eq!(status_of("/", "host", host.as_bytes()).await, 400, "host {host:?}");
        }
        assert_eq!(status_of("/", "host", b"a.test:80").await, 200);
        for authority in ["a.test:99999", "u@a.test"] {
            let uri = format!("http://{authority}/");
            assert_eq!(status_of(&uri, "x-other", b"1").await, 400, "{authority}");
        }
    })
    .await;
}

#[test]
fn only_websocket_may_take_a_connection_out_of_http() {
    let offered = |upgrade: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("connection", "Upgrade, HTTP2-Settings".parse().unwrap());
        headers.insert("upgrade", upgrade.parse().unwrap());
        headers.insert("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA".parse().unwrap());
        hop::prepare_request(&mut headers, true);
        assert!(!headers.contains_key("http2-settings"));
        headers.get("upgrade").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(offered("h2c"), None);
    assert_eq!(offered("TLS/1.0"), None);
    assert_eq!(offered("WebSocket").as_deref(), Some("websocket"));
    assert_eq!(offered("h2c, websocket").as_deref(), Some("websocket"));
}

#[test]
fn a_prepared_request_keeps_its_offer_and_loses_what_edits_say_about_the_connection() {
    let mut headers = http::HeaderMap::new();
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert("x-tenant", "a".parse().unwrap());
    headers.insert("connection", "x-tenant".parse().unwrap());
    headers.insert("transfer-encoding", "chunked".parse().unwrap());
    let mut other = headers.clone();
    hop::for_version(&mut headers, true);
    assert_eq!(headers.len(), 2, "{headers:?}");
    hop::for_version(&mut other, false);
    assert_eq!(other.len(), 1, "{other:?}");
}

/// A length that is not of this message must not reach the next hop: it would wait for a body that is the next request.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_announces_none() {
    locally(async {
        let (client, mut far) = client_on(4096);
        let mut request = get("/");
        request.headers_mut().insert("content-length", "44".parse().unwrap());
        let serving = async {
            let head = read_until(&mut far, "\r\n\r\n").await;
            assert!(!head.contains("content-length"), "{head}");
            far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (response, ()) = tokio::join!(client.send(request), serving);
        assert_eq!(response.unwrap().status(), 204);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_length_on_a_204_is_not_passed_on() {
    let handler = async |_: Request<Body>| {
        let mut response = status(StatusCode::NO_CONTENT);
        response.headers_mut().insert("content-length", "5".parse().unwrap());
        response
    };
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (output, _) = locally(answer(input, ServerSettings::default(), handler)).await;
    assert_eq!(output, "HTTP/1.1 204 No Content\r\n\r\n");
    locally(async {
        let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), handler);
        let (response, _) = raw_h2(io).await.send_request(get("http://a.test/").map(|_| ()), true).unwrap();
        assert!(!response.await.unwrap().headers().contains_key("content-length"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_streams_only_to_take_them_back_is_closed() {
    async fn opened(settings: ServerSettings, pause: std::time::Duration) -> u64 {
        let handler = async |_: Request<Body>| std::future::pending::<Response<Body>>().await;
        let (io, server, _trigger) = start(1 << 16, settings, handler);
        let mut send = raw_h2(io).await;
        for _ in 0..60 {
            let request = Request::builder().uri("http://a.test/").body(()).unwrap();
            if std::future::poll_fn(|cx| send.poll_ready(cx)).await.is_err() {
                break;
            }
            let Ok((_response, mut stream)) = send.send_request(request, false) else { break };
            tokio::time::sleep(pause).await;
            stream.send_reset(::h2::Reason::CANCEL);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        drop(send);
        server.await.unwrap().requests
    }
    locally(async {
        let limited = ServerSettings { h2_max_early_resets: Some(20), ..ServerSettings::default() };
        let soon = std::time::Duration::from_millis(1);
        assert_eq!(opened(limited.clone(), soon).await, 21);
        assert_eq!(
            opened(limited, std::time::Duration::from_secs(2)).await,
            60,
            "these waited for an answer"
        );
        assert_eq!(opened(ServerSettings::default(), soon).await, 60);
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After the preface any bytes may come: frames of any kind, cut, damaged, out of order.
    #[test]
    fn arbitrary_frames_never_panic(
        frames in prop::collection::vec((0u8..12, any::<u8>(), 0u32..8, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for (kind, flags, stream, payload) in frames {
            input.extend(&(payload.len() as u32).to_be_bytes()[1..]);
            input.extend([kind, flags]);
            input.extend(stream.to_be_bytes());
            input.extend(payload);
        }
        input.extend(tail);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (mut client, task, _trigger) = start(1 << 20, ServerSettings::default(), describe);
            client.write_all(&input).await.unwrap();
            client.shutdown().await.unwrap();
            let mut output = Vec::new();
            let _ = client.read_to_end(&mut output).await;
            drop(client);
            task.await.unwrap();
        });
    }

    #[test]
    fn no_request_from_http_2_keeps_a_field_of_one_connection(
        names in prop::collection::vec(prop::sample::select(&["x-a", "te", "host", "cookie", "connection", "upgrade", "keep-alive", "content-length"][..]), 0..6),
        values in prop::collection::vec(prop::sample::select(&["trailers", "a.test", " 1", "1", "close", "a b", ""][..]), 6),
        authority in any::<bool>(),
    ) {
        let uri = if authority { "http://a.test/x" } else { "/x" };
        let mut request = Request::builder().uri(uri).version(http::Version::HTTP_2);
        for (name, value) in names.iter().zip(&values) {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        if let Ok(parts) = hop::request_from_h2(parts, &HeadLimits::default()) {
            prop_assert!(hop::authority(&parts.headers).is_some_and(|host| !host.is_empty()));
            prop_assert_eq!(parts.headers.get_all("host").iter().count(), 1);
            prop_assert!(parts.uri.authority().is_none());
            for name in ["connection", "upgrade", "keep-alive", "transfer-encoding"] {
                prop_assert!(!parts.headers.contains_key(name));
            }
            for value in parts.headers.values() {
                prop_assert_eq!(value.as_bytes(), value.as_bytes().trim_ascii());
            }
        }
    }
}
