//! HTTP/2, and the way across from one version to the other.

use std::time::Duration;

use http::header::COOKIE;
use http::uri::Scheme;
use http_body::Frame;

use super::*;

async fn h2_to(io: DuplexStream) -> H2Client {
    let (client, driver) = H2Client::handshake(io, Scheme::HTTP, &ClientSettings::default()).await.unwrap();
    spawn_local(driver);
    client
}

fn trailers() -> http::HeaderMap {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("content-length", "3".parse().unwrap());
    trailers
}

#[tokio::test(start_paused = true)]
async fn requests_arrive_in_canonical_form() {
    locally(async {
        let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), describe);
        let client = h2_to(io).await;
        let response = client.send(post("/x?y", Body::from("abc"))).await.unwrap();
        assert_eq!(response.headers()["content-length"], "20");
        assert_eq!(response.into_body().collect(100).await.unwrap(), "[POST /x?y a.test 3]"[..].as_bytes());
        assert_eq!(client.in_flight(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn trailers_cross_from_http_2_to_http_1_1_and_back() {
    locally(async {
        let (far, _backend, _t1) = start(1 << 16, ServerSettings::default(), echo);
        let h1 = H1Client::new(far, Rc::new(ClientSettings::default()));
        let middle = async move |mut request: Request<Body>| {
            hop::prepare_request(request.headers_mut(), false);
            h1.send(request).await.unwrap()
        };
        let (far, _proxy, _t2) = start(1 << 16, ServerSettings::default(), middle);
        let client = h2_to(far).await;
        let (frames, _) = Frames::new([Frame::data(Bytes::from_static(b"abc")), Frame::trailers(trailers())]);
        let mut body = client.send(post("/", Body::boxed(frames))).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        let got = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(got["grpc-status"], "0");
        assert!(!got.contains_key("content-length"));
        assert!(body.frame().await.is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_echoes_in_both_directions_at_once() {
    locally(async {
        let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), echo);
        let client = h2_to(io).await;
        let pieces = (0..200).map(|_| Frame::data(Bytes::from(vec![b'x'; 50_000])));
        let (frames, _) = Frames::new(pieces);
        let mut body = client.send(post("/", Body::boxed(frames))).await.unwrap().into_body();
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(got, 10_000_000);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_bounds_what_is_sent() {
    locally(async {
        let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), echo);
        let client = h2_to(io).await;
        let (frames, pulled) = Frames::new((0..2000).map(|_| Frame::data(Bytes::from(vec![b'x'; 16_384]))));
        let mut body = client.send(post("/", Body::boxed(frames))).await.unwrap().into_body();
        let _ = body.frame().await;
        // Only what belongs beside the data goes on.
        for _ in 0..2000 {
            std::future::poll_fn(|cx| {
                body.poll_progress(cx);
                std::task::Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
        let in_flight = *pulled.borrow() * 16_384;
        assert!(in_flight < 5 << 20, "{in_flight} bytes are in flight");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_cancels_the_handler_of_its_stream() {
    locally(async {
        let handler = async |_: Request<Body>| std::future::pending::<Response<Body>>().await;
        let (io, server, trigger) = start(1 << 16, ServerSettings::default(), handler);
        let client = h2_to(io).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), client.send(get("/"))).await.is_err());
        assert_eq!(client.in_flight(), 0);
        trigger.start();
        let end = server.await.unwrap();
        assert_eq!((end.requests, end.cancelled, end.reason), (1, 1, EndReason::Drained));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_drain_finishes_streams_and_turns_new_ones_away_unsent() {
    locally(async {
        let slow = async |request: Request<Body>| {
            tokio::time::sleep(Duration::from_secs(3)).await;
            describe(request).await
        };
        let (io, server, trigger) = start(1 << 16, ServerSettings::default(), slow);
        let client = h2_to(io).await;
        let draining = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(client.is_usable());
            trigger.start();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!client.is_usable());
            let error = client.send(get("/late")).await.unwrap_err();
            assert_eq!(error.delivery, Delivery::NotSent);
            assert!(error.request.is_some());
        };
        let (response, ()) = tokio::join!(client.send(get("/early")), draining);
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(server.await.unwrap().reason, EndReason::Drained);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_was_not_sent_and_a_reset_one_may_have_been() {
    locally(async {
        for (reason, delivery) in [
            (::h2::Reason::REFUSED_STREAM, Delivery::NotSent),
            (::h2::Reason::INTERNAL_ERROR, Delivery::MaybeDelivered),
        ] {
            let (near, far) = tokio::io::duplex(1 << 16);
            spawn_local(async move {
                let mut server = ::h2::server::handshake(far).await.unwrap();
                while let Some(Ok((_request, mut respond))) = server.accept().await {
                    respond.send_reset(reason);
                }
            });
            let client = h2_to(near).await;
            assert_eq!(client.send(get("/")).await.unwrap_err().delivery, delivery);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn cookie_crumbs_are_joined_and_foreign_fields_refused() {
    locally(async {
        let handler = async |request: Request<Body>| {
            Response::new(Body::full(request.headers()[COOKIE].as_bytes().to_vec()))
        };
        let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), handler);
        let (mut send, connection) = ::h2::client::handshake(io).await.unwrap();
        spawn_local(connection);
        let crumbs = Request::builder().uri("http://a.test/").header("cookie", "a=1").header("cookie", "b=2");
        let (response, _) = send.send_request(crumbs.body(()).unwrap(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "a=1; b=2");
        let te = Request::builder().uri("http://a.test/").header("host", "b.test").body(()).unwrap();
        let (response, _) = send.send_request(te, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 400);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn trailers_cross_from_http_1_1_to_http_2_and_back() {
    locally(async {
        let (far, _backend, _t1) = start(1 << 16, ServerSettings::default(), echo);
        let h2 = h2_to(far).await;
        let middle = async move |mut request: Request<Body>| {
            hop::prepare_request(request.headers_mut(), false);
            h2.send(request).await.unwrap()
        };
        let (mut client, _proxy, _t2) = start(1 << 16, ServerSettings::default(), middle);
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, X-Mine, Host\r\nX-Mine: 1\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nGrpc-Status: 0\r\nHost: evil\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let output = read_until(&mut client, "0\r\ngrpc-status: 0\r\n\r\n").await;
        assert!(output.contains("3\r\nabc\r\n"), "{output}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_goaway_below_a_stream_proves_that_it_was_not_processed() {
    locally(async {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let peer = spawn_local(async move {
            // SETTINGS, then GOAWAY with last stream 0 and NO_ERROR.
            far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            far.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let mut sink = Vec::new();
            let _ = far.read_to_end(&mut sink).await;
        });
        let client = h2_to(near).await;
        let error = client.send(post("/pay", Body::from("10"))).await.unwrap_err();
        assert_eq!(error.delivery, Delivery::NotSent);
        assert!(!client.is_usable());
        drop(client);
        peer.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_may_have_delivered() {
    locally(async {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        spawn_local(async move {
            far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
        let client = h2_to(near).await;
        assert_eq!(client.send(get("/")).await.unwrap_err().delivery, Delivery::MaybeDelivered);
        tokio::task::yield_now().await;
        assert!(!client.is_usable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_wait_while_the_peer_allows_no_more_streams() {
    locally(async {
        let most = Rc::new(RefCell::new((0usize, 0usize)));
        let seen = Rc::clone(&most);
        let handler = async move |request: Request<Body>| {
            {
                let mut seen = seen.borrow_mut();
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            seen.borrow_mut().0 -= 1;
            describe(request).await
        };
        let settings = ServerSettings { h2_max_streams: 3, ..ServerSettings::default() };
        let (io, _server, _trigger) = start(1 << 16, settings, handler);
        let client = h2_to(io).await;
        client.send(get("/first")).await.unwrap();
        assert_eq!(client.max_streams(), 3);
        let all = futures_util::future::join_all((0..10).map(|_| client.send(get("/")))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(most.borrow().1, 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_given_up() {
    locally(async {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        spawn_local(async move {
            far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut sink = Vec::new();
            let _ = far.read_to_end(&mut sink).await;
        });
        let ping = Some(Duration::from_secs(10));
        let settings = ClientSettings { h2_ping: ping, ..ClientSettings::default() };
        let (client, driver) = H2Client::handshake(near, Scheme::HTTP, &settings).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(driver.await.is_err());
        assert_eq!(began.elapsed().as_secs(), 20);
        assert!(!client.is_usable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_is_kept() {
    locally(async {
        let (io, _server, _trigger) = start(1 << 16, ServerSettings::default(), describe);
        let settings = ClientSettings { h2_ping: Some(Duration::from_secs(10)), ..ClientSettings::default() };
        let (client, driver) = H2Client::handshake(io, Scheme::HTTP, &settings).await.unwrap();
        spawn_local(driver);
        tokio::time::sleep(Duration::from_secs(95)).await;
        assert_eq!(client.send(get("/")).await.unwrap().status(), 200);
    })
    .await;
}
