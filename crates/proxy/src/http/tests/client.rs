//! The client's connection: reuse, early responses, what can have been delivered, and whole proxies.

use std::cell::Cell;
use std::time::Duration;

use http_body::Frame;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_comes_back_when_the_response_has_ended() {
    locally(async {
        let returned = Rc::new(Cell::new(0));
        for n in 1..=3 {
            let (client, mut far) = client_on(4096);
            let count = Rc::clone(&returned);
            client.on_idle(move |_| count.set(count.get() + 1));
            let sending = client.send(get("/"));
            let serving = async {
                read_until(&mut far, "\r\n\r\n").await;
                far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                    .await
                    .unwrap();
            };
            let (response, ()) = tokio::join!(sending, serving);
            let mut body = response.unwrap().into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
            assert!(!client.is_reusable());
            assert_eq!(returned.get(), n - 1);
            far.write_all(b"0\r\n\r\n").await.unwrap();
            assert!(body.frame().await.is_none());
            assert_eq!(returned.get(), n);
            assert!(client.is_reusable());
            drop(far);
            assert!(!client.is_reusable());
        }
        let (client, mut far) = client_on(4096);
        far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        // What a server says unasked makes the connection useless.
        assert!(!client.is_reusable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_on_a_closed_connection_comes_back_untouched() {
    locally(async {
        let (client, far) = client_on(4096);
        drop(far);
        let error = client.send(post("/pay", Body::from("10"))).await.unwrap_err();
        assert_eq!(error.delivery, Delivery::NotSent);
        assert_eq!(error.request.unwrap().uri().path(), "/pay");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_close_after_the_request_was_written_may_mean_delivery() {
    locally(async {
        let (client, mut far) = client_on(4096);
        let serving = async {
            read_until(&mut far, "\r\n\r\n").await;
            drop(far);
        };
        let (response, ()) = tokio::join!(client.send(get("/")), serving);
        assert_eq!(response.unwrap_err().delivery, Delivery::MaybeDelivered);
        assert!(!client.is_reusable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ambiguous_responses_are_refused() {
    let bad: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\n\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"nonsense\r\n\r\n",
    ];
    locally(async {
        for bytes in bad {
            let (client, mut far) = client_on(4096);
            let serving = async {
                read_until(&mut far, "\r\n\r\n").await;
                far.write_all(bytes).await.unwrap();
            };
            let (response, ()) = tokio::join!(client.send(get("/")), serving);
            let error = response.expect_err(&String::from_utf8_lossy(bytes));
            assert!(matches!(error.failure, SendFailure::BadResponse(_)), "{error:?}");
            assert!(!client.is_reusable());
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_early_response_arrives_while_the_upload_goes_on() {
    locally(async {
        let (client, mut far) = client_on(4096);
        let piece = Bytes::from(vec![b'x'; 1000]);
        let (frames, pulled) = Frames::new((0..100).map(move |_| Frame::data(piece.clone())));
        let serving = async {
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            far
        };
        let (response, mut far) = tokio::join!(client.send(post("/", Body::boxed(frames))), serving);
        assert!(*pulled.borrow() < 50);
        let mut body = response.unwrap().into_body();
        let reading = async {
            assert!(body.frame().await.is_none());
        };
        let serving = async {
            read_until(&mut far, "\r\n0\r\n\r\n").await;
            far.write_all(b"0\r\n\r\n").await.unwrap();
        };
        tokio::join!(reading, serving);
        assert_eq!(*pulled.borrow(), 101);
        assert!(client.is_reusable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_ends_before_the_upload_cancels_it_and_the_connection() {
    locally(async {
        let (client, mut far) = client_on(4096);
        let piece = Bytes::from(vec![b'x'; 1000]);
        let (frames, _) = Frames::new((0..1000).map(move |_| Frame::data(piece.clone())));
        let serving = async {
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        };
        let (response, ()) = tokio::join!(client.send(post("/", Body::boxed(frames))), serving);
        let response = response.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect(10).await.unwrap(), "no");
        assert!(!client.is_reusable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn informational_responses_are_skipped_within_a_bound() {
    locally(async {
        for (count, fine) in [(16, true), (17, false)] {
            let (client, mut far) = client_on(1 << 16);
            let serving = async {
                read_until(&mut far, "\r\n\r\n").await;
                for _ in 0..count {
                    far.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await.unwrap();
                }
                far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            };
            let (response, ()) = tokio::join!(client.send(get("/")), serving);
            assert_eq!(response.is_ok(), fine);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_truncated_response_is_an_error() {
    locally(async {
        for head in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"] {
            let (client, mut far) = client_on(4096);
            let serving = async {
                read_until(&mut far, "\r\n\r\n").await;
                far.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes()).await.unwrap();
                drop(far);
            };
            let (response, ()) = tokio::join!(client.send(get("/")), serving);
            assert_eq!(response.unwrap().into_body().collect(100).await, Err(BodyError::Incomplete));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_early_closes_the_connection() {
    locally(async {
        let (client, mut far) = client_on(4096);
        let serving = async {
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
        };
        let (response, ()) = tokio::join!(client.send(get("/")), serving);
        drop(response);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(!client.is_reusable());
    })
    .await;
}

/// A proxy before an echo, HTTP/1.1 on both hops: the bytes in flight stay bounded however much passes through.
#[tokio::test(start_paused = true)]
async fn a_proxied_echo_carries_megabytes_both_ways_with_bounded_memory() {
    locally(async {
        let (far, _backend, _t1) = start(8 * 1024, ServerSettings::default(), echo);
        let upstream = H1Client::new(far, Rc::new(ClientSettings::default()));
        let handler = async move |mut request: Request<Body>| {
            hop::prepare_request(request.headers_mut(), false);
            upstream.send(request).await.unwrap()
        };
        let (client, _proxy, _t2) = start(8 * 1024, ServerSettings::default(), handler);
        let (mut read, mut write) = tokio::io::split(client);
        let total = 4 << 20;
        let sent = Rc::new(Cell::new(0usize));
        let sending = async {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            while sent.get() < total {
                write.write_all(&[b'x'; 4096]).await.unwrap();
                sent.set(sent.get() + 4096);
            }
        };
        let receiving = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(sent.get() < 512 * 1024, "{} bytes are in flight", sent.get());
            let mut got = 0;
            let mut buf = vec![0; 32 * 1024];
            while got < total {
                let n = read.read(&mut buf).await.unwrap();
                assert!(n > 0);
                got += n;
            }
        };
        tokio::join!(sending, receiving);
    })
    .await;
}

/// Client, proxy, server: the offer, the 101 and the bytes behind it cross the proxy.
#[tokio::test(start_paused = true)]
async fn an_upgrade_crosses_a_proxy() {
    locally(async {
        let (upstream, mut far) = client_on(4096);
        let handler = async move |mut request: Request<Body>| {
            hop::prepare_request(request.headers_mut(), true);
            let mut response = upstream.send(request).await.unwrap();
            let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            hop::prepare_response(response.headers_mut(), switching);
            response
        };
        let (mut client, proxy, _trigger) = start(4096, ServerSettings::default(), handler);
        let offer =
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(offer).await.unwrap();
        let forwarded = read_until(&mut far, "\r\n\r\n").await;
        assert!(forwarded.contains("upgrade: websocket\r\n"), "{forwarded}");
        assert!(forwarded.contains("connection: upgrade\r\n"), "{forwarded}");
        far.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        )
        .await
        .unwrap();
        let answer = read_until(&mut client, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
        client.write_all(b"ping").await.unwrap();
        read_until(&mut far, "ping").await;
        drop((client, far));
        assert_eq!(proxy.await.unwrap().tunnelled.0, 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connect_request_becomes_a_tunnel() {
    locally(async {
        let (client, mut far) = client_on(4096);
        let request = Request::builder().method("CONNECT").uri("b.test:443").header("host", "b.test:443");
        let serving = async {
            assert!(read_until(&mut far, "\r\n\r\n").await.starts_with("CONNECT b.test:443 HTTP/1.1\r\n"));
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nraw").await.unwrap();
        };
        let (response, ()) = tokio::join!(client.send(request.body(Body::empty()).unwrap()), serving);
        let upgraded = response.unwrap().into_body().into_upgraded().unwrap();
        assert_eq!(upgraded.read_ahead, "raw");
        assert!(!client.is_reusable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_is_told_apart_from_a_server_that_fails() {
    struct Broken;
    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            std::task::Poll::Ready(Some(Err(BodyError::Incomplete)))
        }
    }
    impl BodyStream for Broken {}
    locally(async {
        let (client, _far) = client_on(4096);
        let error = client.send(post("/", Body::boxed(Broken))).await.unwrap_err();
        assert!(matches!(error.failure, SendFailure::RequestBody(BodyError::Incomplete)), "{error:?}");
        assert_eq!(error.delivery, Delivery::NotSent);
    })
    .await;
}
