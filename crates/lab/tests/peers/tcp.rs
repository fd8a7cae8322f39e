//! TCP: a Redis and its clients, a server that speaks first, halves that close.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    process::Command,
};

use crate::{
    mesh::{Peers, page},
    programs::{program, python_with, shown, succeeds, text},
    raw::connect,
};

#[test]
fn redis_and_its_clients_meet_through_the_mesh() {
    let peers = Peers::start(&[]);
    let arguments = ["--bind", "{address}", "--port", "{port}", "--save", "", "--appendonly", "no"];
    let protected = ["--protected-mode", "no", "--dir", peers.folder().to_str().unwrap()];
    let _redis =
        peers.serve("redis", 6379, &program("redis-server"), &[&arguments[..], &protected[..]].concat());
    let client = peers.client();
    let redis = client.address("REDIS_ADDR");
    let cli = |arguments: &[&str]| {
        let mut cli = Command::new(program("redis-cli"));
        text(&succeeds(at(&mut cli, redis).args(arguments))).trim().to_owned()
    };
    assert_eq!(cli(&["SET", "greeting", "hello"]), "OK");
    assert_eq!(cli(&["GET", "greeting"]), "hello");

    let mut benchmark = Command::new(program("redis-benchmark"));
    at(&mut benchmark, redis).args(["-n", "20000", "-P", "16", "-c", "8", "-r", "100000", "-q"]);
    let output = succeeds(benchmark.args(["-t", "incr,lpush"]));
    assert!(text(&output).contains("LPUSH") && !text(&output).contains("Error"), "{}", shown(&output));
    assert_eq!(cli(&["LLEN", "mylist"]), "20000", "each pipelined push arrived once");

    let metrics = page(peers.workload("redis").admin.unwrap(), "/stats/prometheus");
    let opened =
        metrics.lines().find(|line| line.starts_with("istio_tcp_connections_opened_total{")).unwrap();
    assert!(opened.contains("connection_security_policy=\"mutual_tls\""), "{opened}");
    assert!(opened.contains("source_principal=\"spiffe://cluster.local/ns/peers/sa/client\""), "{opened}");
}

#[test]
fn a_server_may_speak_first_and_either_half_may_close_alone() {
    let peers = Peers::start(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/tcp_server.py");
    let _server = peers.serve("guest", 7001, &python_with("socketserver"), &[script, "{address}", "{port}"]);
    let client = peers.client();
    for size in [0, 10, 3_000_000] {
        let mut stream = connect(client.address("GUEST_TCP_ADDR"));
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"220 speak\r\n");
        let sent = vec![b'x'; size];
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let expected = [format!("{size} bytes: ").as_bytes(), &sent].concat();
        assert!(answer == expected, "{size}: {} bytes came back", answer.len());
    }
    // The stand-in's echo ends its half when we end ours.
    let mut stream = connect(client.address("ECHO_ADDR"));
    stream.write_all(b"back and forth").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "back and forth");
}

fn at(command: &mut Command, address: SocketAddr) -> &mut Command {
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
}
