//! curl, by way of the client's proxy and by way of the gateway.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::{
    mesh::{HOST, Peers},
    programs::{ends, program, shown, succeeds, text},
};

/// Large enough that no buffer on the way holds it.
const LARGE: usize = 48 << 20;

#[test]
fn curl_speaks_http_1_1_through_the_mesh() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let (web, echo) = (client.url("WEB_ADDR", "/"), client.url("WEB_ADDR", "/echo"));

    let before = peers.answered("web");
    let kept = curl(&["-w", "%{num_connects} ", "-o", "/dev/null", &web, "-o", "/dev/null", &web]);
    assert_eq!(text(&kept), "1 0 ", "the second request uses the first one's connection");
    assert_eq!(peers.answered("web") - before, 2);

    let file = peers.folder().join("upload");
    fs::write(&file, bytes(300_000)).unwrap();
    let at = format!("@{}", file.display());
    let chunked = curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &at, &echo]);
    assert!(chunked.stdout == bytes(300_000), "a chunked upload comes back as it went");

    let waited = curl(&["-v", "-H", "Expect: 100-continue", "--data-binary", &at, &echo]);
    let said = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert!(said.contains("< HTTP/1.1 100 Continue"), "{said}");
    assert!(waited.stdout == bytes(300_000));

    let head = text(&curl(&["-I", &web]));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(
        head.lines().filter(|line| line.trim().is_empty()).count(),
        1,
        "a head and nothing more: {head}"
    );

    let trailers = text(&curl(&["-i", "-H", "TE: trailers", &client.url("WEB_ADDR", "/trailers")]));
    let (_, after) = trailers.split_once("trailers follow").unwrap();
    assert!(after.to_ascii_lowercase().contains("x-trailer: yes"), "behind the body: {trailers}");

    let no_body =
        curl(&["-w", "%{http_code}", "-X", "DELETE", &client.url("WEB_ADDR", "/x?x-leno-status=204")]);
    assert_eq!(text(&no_body), "204");
}

#[test]
fn curl_speaks_http_2_with_prior_knowledge_and_by_alpn() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let format = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    let web = client.url("WEB_ADDR", "/");
    let prior = [&["--http2-prior-knowledge"], &format[..], &[&*web]].concat();
    assert_eq!(text(&curl(&prior)), "2 200");

    let edge = peers.edge("https");
    let (authority, connect) = (peers.authority(), format!("{HOST}:443:{edge}"));
    let authority = authority.to_str().unwrap();
    let url = format!("https://{HOST}/");
    let trusted = ["--cacert", authority, "--connect-to", &connect];
    for (version, expected) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let arguments = [&[version], &format[..], &trusted[..], &[&*url]].concat();
        assert_eq!(text(&curl(&arguments)), expected, "by ALPN");
    }
    let other = ends(Command::new(program("curl")).args(["-sS", "--connect-to", &connect, &url]));
    assert_eq!(other.status.code(), Some(60), "a client that does not trust it says so: {}", shown(&other));
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let (sent, received) = (peers.folder().join("sent"), peers.folder().join("received"));
    fs::write(&sent, bytes(LARGE)).unwrap();
    let at = format!("@{}", sent.display());
    let https = format!("https://{HOST}/echo");
    let connect = format!("{HOST}:443:{}", peers.edge("https"));
    let authority = peers.authority();
    let by_edge = ["--http2", "--cacert", authority.to_str().unwrap(), "--connect-to", &connect, &https];
    let echo = client.url("WEB_ADDR", "/echo");
    let ways: [&[&str]; 3] = [&[&echo], &["--http2-prior-knowledge", &echo], &by_edge];
    for way in ways {
        let output = ["-o", received.to_str().unwrap(), "--data-binary", &at];
        curl(&[&output[..], way].concat());
        assert!(same(&sent, &received), "{way:?}");
    }
    let huge = format!("/?x-leno-body-bytes={LARGE}");
    let downloaded = curl(&["-w", "%{size_download}", "-o", "/dev/null", &client.url("WEB_ADDR", &huge)]);
    assert!(text(&downloaded).parse::<usize>().unwrap() > LARGE);
}

#[test]
fn connect_is_refused_everywhere() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let before = peers.answered("web");
    let edge = format!("http://{}", peers.edge("http"));
    let outbound = client.url("WEB_ADDR", "");
    for proxy in [&*edge, &*outbound, client.http_proxy()] {
        for target in ["http://web.peers/", "http://127.0.0.1:22/"] {
            let mut curl = Command::new(program("curl"));
            curl.args(["-sS", "--noproxy", "", "-p", "-x", proxy, "-w", "%{http_connect}", target]);
            let output = ends(&mut curl);
            assert_eq!(text(&output), "405", "CONNECT {target} by {proxy}: {}", shown(&output));
        }
    }
    assert_eq!(peers.answered("web"), before, "no application saw any of it");
}

fn curl(arguments: &[&str]) -> Output {
    succeeds(
        Command::new(program("curl")).args(["-sS", "--noproxy", "*", "--max-time", "60"]).args(arguments),
    )
}

/// Bytes that repeat nowhere soon.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(count);
    bytes
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}
