//! Peers that are slow on purpose: they are ended by time limits, and cost no memory meanwhile.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{mesh::Peers, programs::python_with, raw::connect};

/// What is offered to a server that does not read.
const UPLOAD: usize = 200 << 20;
/// How much a proxy may grow under it.
const GROWTH: u64 = 16 << 20;
/// An upload that moved nothing for so long is blocked.
const BLOCKED: Duration = Duration::from_secs(3);
/// The proxy's limit is 30 s; a busy machine is given more.
const HEADER_PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn a_header_that_comes_a_byte_a_second_is_ended() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let plain = SocketAddr::new(peers.workload("web").address, 8080);
    let places = [("the client's proxy", client.address("WEB_ADDR")), ("the gateway", peers.edge("http"))];
    let places = places.into_iter().chain([("the server's proxy, in plaintext", plain)]);
    let waiting: Vec<_> = places.map(|(place, at)| (place, std::thread::spawn(move || drip(at)))).collect();
    for (place, dripping) in waiting {
        let (after, answer) = dripping.join().unwrap();
        assert!(after > Duration::from_secs(20), "{place} did not wait: {after:?}, {answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{place}: {answer}");
        println!("{place} ended a slow header after {after:?}: {:?}", answer.lines().next());
    }
}

#[test]
fn an_upload_that_nobody_reads_is_held_back_and_not_kept() {
    let peers = Peers::start(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/silent_server.py");
    let python = python_with("socket");
    let _http = peers.serve("guest", 8080, &python, &[script, "{address}", "{port}"]);
    let client = peers.client();
    // A first, small exchange: what a connection costs once is no growth.
    let mut warm = connect(client.address("GUEST_ADDR"));
    warm.write_all(b"POST / HTTP/1.1\r\nhost: guest\r\ncontent-length: 10\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let pids = [peers.proxy_pid("client"), peers.proxy_pid("guest")];
    let before = pids.map(resident);
    let mut streams = Vec::new();
    for connection in 0..2 {
        let mut stream = connect(client.address("GUEST_ADDR"));
        let head = format!("POST /upload HTTP/1.1\r\nhost: guest\r\ncontent-length: {UPLOAD}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let sent = push(&mut stream);
        assert!(sent < UPLOAD / 4, "somebody takes what the server does not read: {sent} bytes");
        println!("connection {connection}: {} KiB are on the way", sent >> 10);
        streams.push(stream);
    }
    for (pid, before) in pids.into_iter().zip(before) {
        let grown = resident(pid).saturating_sub(before);
        println!("process {pid}: {} KiB resident, {} KiB more", before >> 10, grown >> 10);
        assert!(grown < GROWTH, "a proxy of {before} bytes grew by {grown}");
    }
}

/// Sends a byte a second; how long that went on, and what was answered.
fn drip(address: SocketAddr) -> (Duration, String) {
    let mut stream = connect(address);
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (began, mut answer) = (Instant::now(), Vec::new());
    let head = b"GET / HTTP/1.1\r\nhost: web\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in head {
        let written = stream.write_all(&[*byte]);
        let mut buffer = [0; 512];
        match stream.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(read) if read > 0 => answer.extend_from_slice(&buffer[..read]),
            Ok(_) | Err(_) => break,
        }
        if written.is_err() {
            break;
        }
        assert!(began.elapsed() < HEADER_PATIENCE, "{address} still listens");
    }
    (began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

/// Writes until nothing moves; how much that was.
fn push(stream: &mut std::net::TcpStream) -> usize {
    stream.set_write_timeout(Some(BLOCKED)).unwrap();
    let (chunk, mut sent) = (vec![b'x'; 64 << 10], 0);
    while sent < UPLOAD {
        match stream.write(&chunk) {
            Ok(written) => sent += written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    sent
}

/// A process's resident memory, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
