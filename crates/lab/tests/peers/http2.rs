//! nghttp and h2load: many streams on few connections.

use std::process::Command;

use crate::{
    mesh::{HOST, Peers},
    programs::{program, shown, succeeds, text},
};

#[test]
fn every_stream_of_nghttp_is_answered() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let before = peers.answered("web");
    // A hundred times the same URL, as streams of one connection.
    let url = client.url("WEB_ADDR", "/");
    let output = succeeds(Command::new(program("nghttp")).args(["-ns", "-m", "100", &url]));
    let codes = text(&output).lines().filter(|line| line.split_whitespace().nth(4) == Some("200")).count();
    assert_eq!(codes, 100, "{}", shown(&output));
    assert_eq!(peers.answered("web") - before, 100);
}

#[test]
fn what_h2load_counts_is_what_the_applications_counted() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let plain = client.url("WEB_ADDR", "/");
    let connect = |listener| format!("--connect-to={}", peers.edge(listener));
    let (http, https) = (format!("http://{HOST}/"), format!("https://{HOST}/"));
    let ways: [(&str, &[&str]); 3] = [
        ("the proxy", &[&plain]),
        ("the gateway", &[&connect("http"), &http]),
        ("TLS at the gateway", &[&connect("https"), &https]),
    ];
    for (way, arguments) in ways {
        let before = peers.answered("web");
        // 4 connections of 50 streams each.
        let mut h2load = Command::new(program("h2load"));
        h2load.args(["-n", "3000", "-c", "4", "-m", "50"]).args(arguments);
        let output = succeeds(&mut h2load);
        let counted = text(&output);
        let expected =
            "requests: 3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(counted.contains(expected), "{way}: {counted}");
        assert!(counted.contains("status codes: 3000 2xx"), "{way}: {counted}");
        assert_eq!(peers.answered("web") - before, 3000, "{way}");
    }
}
