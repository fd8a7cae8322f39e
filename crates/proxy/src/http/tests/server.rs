//! The server's connection: keep-alive, bodies both ways, time limits, upgrades and the drain.

use std::cell::Cell;
use std::time::Duration;

use http_body::Frame;

use super::*;

fn defaults() -> ServerSettings {
    ServerSettings::default()
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let input = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxxGET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (output, end) = locally(answer(input, defaults(), describe)).await;
    let at = |what: &str| output.find(what).unwrap();
    assert!(at("[GET /1 a 0]") < at("[POST /2 a 2]") && at("[POST /2 a 2]") < at("[GET /3 a 0]"), "{output}");
    assert_eq!((end.requests, end.reason), (3, EndReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn http_1_0_closes_unless_asked_to_stay() {
    locally(async {
        let (output, end) = answer(b"GET / HTTP/1.0\r\n\r\n", defaults(), describe).await;
        assert!(output.contains("connection: close\r\n"), "{output}");
        assert_eq!(end.reason, EndReason::Finished);
        let (output, end) =
            answer(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", defaults(), describe).await;
        assert!(output.contains("connection: keep-alive\r\n"), "{output}");
        assert_eq!(end.reason, EndReason::Idle);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http_1_0_gets_a_body_of_unknown_length_until_close() {
    let handler = async |_| {
        let (frames, _) = Frames::new([Frame::data(Bytes::from_static(b"abc"))]);
        Response::new(Body::boxed(frames))
    };
    let (output, _) =
        locally(answer(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", defaults(), handler)).await;
    assert!(output.contains("connection: close\r\n") && output.ends_with("\r\n\r\nabc"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_has_fields_and_no_body() {
    let input = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (output, _) = locally(answer(input, defaults(), async |_| Response::new(Body::from("hello")))).await;
    let (head, rest) = output.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("content-length: 5"), "{head}");
    assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_204_has_no_framing_at_all() {
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (output, _) = locally(answer(input, defaults(), async |_| status(StatusCode::NO_CONTENT))).await;
    assert_eq!(output, "HTTP/1.1 204 No Content\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn header_values_keep_their_bytes_and_repeated_fields_their_order() {
    let input = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B: \xe9,  b\r\nx-a: 2\r\n\r\n";
    let handler = async |request: Request<Body>| {
        let values: Vec<&[u8]> = request.headers().get_all("x-a").iter().map(|v| v.as_bytes()).collect();
        assert_eq!(values, [b"1", b"2"]);
        assert_eq!(request.headers()["x-b"].as_bytes(), b"\xe9,  b");
        status(StatusCode::OK)
    };
    assert_eq!(statuses(&locally(answer(input, defaults(), handler)).await.0), [200]);
}

#[tokio::test(start_paused = true)]
async fn an_echo_runs_in_both_directions_at_once() {
    locally(async {
        let (mut client, _task, _trigger) = start(4096, defaults(), echo);
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            .await
            .unwrap();
        read_until(&mut client, "one").await;
        client.write_all(b"3\r\ntwo\r\n").await.unwrap();
        read_until(&mut client, "two").await;
        client.write_all(b"0\r\nX-End: yes\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        let end = read_until(&mut client, "\r\n\r\n").await;
        assert!(end.contains("0\r\nx-end: yes\r\n\r\n"), "{end}");
        client.write_all(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut client, "HTTP/1.1 200 OK").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stops_the_response_from_being_pulled() {
    locally(async {
        let piece = Bytes::from(vec![b'x'; 16 * 1024]);
        let (frames, pulled) = Frames::new((0..1000).map(move |_| Frame::data(piece.clone())));
        let body = Cell::new(Some(Body::boxed(frames)));
        let handler = async move |_| Response::new(body.take().unwrap());
        let (mut client, _task, _trigger) = start(8 * 1024, defaults(), handler);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(*pulled.borrow() <= 6, "{} frames are in flight", pulled.borrow());
        let mut total = 0;
        while total < 16 * 1024 * 1000 {
            let mut buf = vec![0; 64 * 1024];
            total += client.read(&mut buf).await.unwrap();
            let in_flight = *pulled.borrow() * 16 * 1024;
            assert!(in_flight < total + 256 * 1024);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_read_stops_the_upload() {
    locally(async {
        let handler = async |_request: Request<Body>| std::future::pending::<Response<Body>>().await;
        let (mut client, _task, _trigger) = start(8 * 1024, defaults(), handler);
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
        let mut sent = 0;
        while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), client.write(&[0; 4096])).await {
            sent += n.unwrap();
        }
        assert!(sent <= 64 * 1024, "{sent} bytes were taken");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_only_when_the_body_is_wanted() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    locally(async {
        let (mut client, _task, _trigger) = start(4096, defaults(), describe);
        client.write_all(head).await.unwrap();
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"abc").await.unwrap();
        assert!(read_until(&mut client, "[POST / a 3]").await.starts_with("HTTP/1.1 200"));

        let (output, end) = answer(head, defaults(), async |_| status(StatusCode::FORBIDDEN)).await;
        assert_eq!(statuses(&output), [403]);
        assert!(output.contains("connection: close"), "{output}");
        assert_eq!(end.reason, EndReason::Finished);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_small_unread_body_is_drained_and_a_large_one_ends_the_connection() {
    let deny = async |_: Request<Body>| status(StatusCode::FORBIDDEN);
    let small = [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" as &[u8],
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .concat();
    let mut large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".to_vec();
    large.resize(200_000, b'x');
    locally(async {
        assert_eq!(statuses(&answer(&small, defaults(), deny).await.0), [403, 403]);
        let (output, end) = answer(&large, defaults(), deny).await;
        assert_eq!((statuses(&output), end.reason), (vec![403], EndReason::Finished));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_the_handler() {
    locally(async {
        let handler = async |_: Request<Body>| std::future::pending::<Response<Body>>().await;
        let (mut client, task, _trigger) = start(4096, defaults(), handler);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::task::yield_now().await;
        drop(client);
        let end = task.await.unwrap();
        assert_eq!((end.reason, end.requests, end.cancelled), (EndReason::Disconnected, 1, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_answered_with_408() {
    locally(async {
        let (mut client, task, _trigger) = start(4096, defaults(), describe);
        let begun = tokio::time::Instant::now();
        let (mut read, mut write) = tokio::io::split(&mut client);
        let trickle = async {
            while write.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut output = String::new();
        tokio::select! {
            () = trickle => {}
            read = read.read_to_string(&mut output) => { read.unwrap(); }
        }
        assert_eq!(statuses(&output), [408]);
        assert_eq!(begun.elapsed().as_secs(), 30);
        assert!(matches!(task.await.unwrap().reason, EndReason::Rejected(error) if error.status == 408));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_slower_than_the_least_pace_times_out() {
    let settings = ServerSettings { body_idle: Duration::from_secs(10), min_progress: 100, ..defaults() };
    locally(async {
        let handler = async |request: Request<Body>| match request.into_body().collect(1000).await {
            Err(BodyError::Timeout) => status(StatusCode::REQUEST_TIMEOUT),
            _ => status(StatusCode::OK),
        };
        let (mut client, _task, _trigger) = start(4096, settings, handler);
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n").await.unwrap();
        let begun = tokio::time::Instant::now();
        let (mut read, mut write) = tokio::io::split(&mut client);
        let trickle = async {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut output = String::new();
        tokio::select! {
            () = trickle => {}
            read = read.read_to_string(&mut output) => { read.unwrap(); }
        }
        assert_eq!(statuses(&output), [408]);
        assert!(begun.elapsed().as_secs() <= 12);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    locally(async {
        let handler = async |_: Request<Body>| Response::new(Body::full(vec![0; 1 << 20]));
        let (mut client, task, _trigger) = start(4096, defaults(), handler);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(task.await.unwrap().reason, EndReason::Timeout);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_its_announced_length_ends_the_connection() {
    let short = async |_: Request<Body>| {
        let (frames, _) = Frames::new([Frame::data(Bytes::from_static(b"abc"))]);
        let mut response = Response::new(Body::boxed(frames));
        response.headers_mut().insert("content-length", 5.into());
        response
    };
    let (output, end) = locally(answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", defaults(), short)).await;
    assert!(output.is_empty() || output.ends_with("abc"), "{output}");
    assert_eq!(end.reason, EndReason::ResponseFailed);
}

#[tokio::test(start_paused = true)]
async fn the_drain_closes_idle_connections_and_lets_requests_finish() {
    locally(async {
        let (mut idle, idle_task, idle_trigger) = start(4096, defaults(), describe);
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut idle, "[GET").await;
        tokio::task::yield_now().await;
        idle_trigger.start();
        assert_eq!(idle_task.await.unwrap().reason, EndReason::Drained);

        let slow = async |request: Request<Body>| {
            tokio::time::sleep(Duration::from_secs(3)).await;
            describe(request).await
        };
        let (mut busy, busy_task, busy_trigger) = start(4096, defaults(), slow);
        busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        busy_trigger.start();
        assert!(read_until(&mut busy, "[GET").await.contains("connection: close"));
        assert_eq!(busy_task.await.unwrap().reason, EndReason::Drained);

        let (mut raced, _task, raced_trigger) = start(4096, defaults(), describe);
        raced_trigger.start();
        raced.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read_until(&mut raced, "[GET").await.contains("connection: close"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_the_drain_on_a_used_connection_is_answered() {
    locally(async {
        let (mut client, task, trigger) = start(4096, defaults(), describe);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(!read_until(&mut client, "[GET").await.contains("connection: close"));
        trigger.start();
        tokio::time::sleep(defaults().linger / 2).await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert!(read_until(&mut client, "[POST").await.contains("connection: close"));
        assert_eq!(task.await.unwrap().reason, EndReason::Drained);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_becomes_a_tunnel_with_half_close() {
    locally(async {
        let (upstream, mut far) = tokio::io::duplex(4096);
        let upstream = Cell::new(Some(upstream));
        let handler = async move |_: Request<Body>| {
            let io = Box::new(upstream.take().unwrap());
            let read_ahead = Bytes::from_static(b"early ");
            let mut response = Response::new(Body::upgraded(Upgraded { io, read_ahead }));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
            response
        };
        let (mut client, task, _trigger) = start(4096, defaults(), handler);
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nahead")
            .await
            .unwrap();
        let head = read_until(&mut client, "early ").await;
        assert!(
            head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
            "{head}"
        );
        client.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "ahead");
        far.write_all(b"late").await.unwrap();
        drop(far);
        got.clear();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "late");
        let end = task.await.unwrap();
        assert_eq!((end.reason, end.tunnelled), (EndReason::Tunnel, (5, 10)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_nobody_asked_for_is_a_bad_gateway() {
    let handler = async |_: Request<Body>| status(StatusCode::SWITCHING_PROTOCOLS);
    let (output, _) = locally(answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", defaults(), handler)).await;
    assert_eq!(statuses(&output), [502]);
}

#[tokio::test(start_paused = true)]
async fn the_request_limit_closes_the_connection() {
    let settings = ServerSettings { max_requests: Some(2), ..defaults() };
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    let (output, end) = locally(answer(&input, settings, describe)).await;
    assert_eq!(statuses(&output), [200, 200]);
    assert_eq!(end.requests, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_small() {
    let (_client, server) = tokio::io::duplex(64);
    let handler = Rc::new(async |_: Request<Body>| {
        let large = [0u8; 4096];
        tokio::task::yield_now().await;
        Response::new(Body::full(large.to_vec()))
    });
    let serving = serve_auto(server, Rc::default(), handler, Drain::never());
    let size = std::mem::size_of_val(&serving);
    assert!(size <= 2048, "{size}");
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_gets_its_response_when_that_is_allowed() {
    locally(async {
        for (allow_half_close, expected) in [(true, &[200u16] as &[u16]), (false, &[])] {
            let settings = ServerSettings { allow_half_close, ..defaults() };
            let slow = async |request: Request<Body>| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                describe(request).await
            };
            let (mut client, _task, _trigger) = start(4096, settings, slow);
            client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
            client.shutdown().await.unwrap();
            let mut output = String::new();
            client.read_to_string(&mut output).await.unwrap();
            assert_eq!(statuses(&output), expected);
        }
    })
    .await;
}
