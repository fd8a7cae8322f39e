//! Requests that two parsers might read in two ways: each must be refused, or mean one thing.

use super::*;

const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";

/// Name, bytes, and the statuses of all responses. Where a request is refused, what follows it must not be served.
const VECTORS: &[(&str, &[u8], &[u16])] = &[
    ("plain get", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    ("content length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", &[200]),
    ("chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &[200]),
    ("chunked in upper case", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", &[200]),
    ("both cl and te", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te then cl", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", &[400]),
    ("same cl twice", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", &[400]),
    ("different cl twice", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\nabc", &[400]),
    ("cl list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3,3\r\n\r\nabc", &[400]),
    ("cl with plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", &[400]),
    ("cl with minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", &[400]),
    ("cl hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", &[400]),
    ("cl with a point", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc", &[400]),
    ("cl empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc", &[400]),
    ("cl with inner space", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\nabc", &[400]),
    ("cl too large", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", &[400]),
    ("te identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", &[400]),
    ("te gzip, chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[501]),
    ("te chunked, gzip", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400]),
    ("te chunked twice in a list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te field twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te with vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te quoted", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", &[400]),
    ("te with parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", &[400]),
    ("te with comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", &[400]),
    ("te in http/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te with space before colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te with tab before colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("te folded", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("any field folded", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", &[400]),
    ("field begins with a space", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", &[400]),
    ("field without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", &[400]),
    ("field without a name", b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", &[400]),
    ("field name with a NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", &[400]),
    ("field value with a NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", &[400]),
    ("field value with a DEL", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", &[400]),
    ("field value with an escape", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x1bc\r\n\r\n", &[400]),
    ("bare cr in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", &[400]),
    ("bare lf in the head", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", &[400]),
    ("bare lf ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", &[400]),
    ("bare lf everywhere", b"GET / HTTP/1.1\nHost: a\n\n", &[400]),
    ("cr cr lf", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", &[400]),
    ("host missing", b"GET / HTTP/1.1\r\n\r\n", &[400]),
    ("host twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
    ("host empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", &[400]),
    ("host with user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", &[400]),
    ("host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400]),
    ("host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
    ("host with a list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", &[400]),
    ("host with a bad port", b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", &[400]),
    ("no host in http/1.0", b"GET / HTTP/1.0\r\n\r\n", &[200]),
    ("http/0.9", b"GET /\r\n\r\n", &[400]),
    ("http/2.0 without the preface", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[505]),
    ("http/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", &[505]),
    ("http in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("two spaces in the request line", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("tab in the request line", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("method is no token", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("relative target", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("star with get", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("star with options", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    ("authority form with get", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("connect with a path", b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("connect without a port", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("connect with a body", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", &[400]),
    ("absolute form with another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("absolute form with user", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("unknown expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 3\r\n\r\nabc", &[417]),
    ("chunk size with plus", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk size with 0x", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk size empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk size overflows", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk size with a trailing space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk size with a leading space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk size ends in bare lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk data longer than its size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", &[400]),
    ("chunk data ends in bare lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", &[400]),
    ("chunk extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", &[200]),
    ("chunk extension with a bare lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n", &[400]),
    ("chunk extension with a bare cr", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", &[400]),
    ("trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", &[200]),
    ("trailer folded", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n", &[400]),
    ("trailer with bare lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n", &[400]),
];

#[tokio::test(start_paused = true)]
async fn ambiguous_requests_are_refused_and_nothing_behind_them_is_served() {
    locally(async {
        let mut wrong = Vec::new();
        for (name, bytes, expected) in VECTORS {
            let (output, _) = answer(bytes, ServerSettings::default(), describe).await;
            if statuses(&output) != *expected {
                wrong.push(format!("{name}: {output:?}"));
            }
            if expected[0] != 200 {
                let with_second = [bytes, SECOND.as_bytes()].concat();
                let (output, end) = answer(&with_second, ServerSettings::default(), describe).await;
                if statuses(&output) != *expected {
                    wrong.push(format!("{name}, followed: {output:?}"));
                }
                assert!(end.requests <= 1 && !output.contains("smuggled"), "{name}: {output}");
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_authority_of_an_absolute_target_wins() {
    let input = b"GET http://b.test:81/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let (output, _) = locally(answer(input, ServerSettings::default(), describe)).await;
    assert!(output.ends_with("[GET /x?y b.test:81 0]"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn heads_beyond_their_limits_are_refused() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(17_000));
    let endless = "y".repeat(20_000);
    locally(async {
        for (input, expected) in [(many, 431), (large, 431), (long, 414), (endless, 414)] {
            let (output, _) = answer(input.as_bytes(), ServerSettings::default(), describe).await;
            assert_eq!(statuses(&output), [expected]);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn endless_chunk_extensions_and_trailers_are_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let line = format!("{head}3;{}", "a".repeat(400));
    let many = format!("{head}{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100));
    let trailers = format!("{head}0\r\n{}\r\n", "X: y\r\n".repeat(100));
    locally(async {
        for input in [line, many, trailers] {
            let (output, _) = answer(input.as_bytes(), ServerSettings::default(), describe).await;
            assert_eq!(statuses(&output), [400]);
        }
    })
    .await;
}
