//! Bytes written by hand, for what no usual client sends: pipelining, upgrades.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::mesh::Peers;

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let before = peers.answered("web");
    for address in [client.address("WEB_ADDR"), peers.edge("http")] {
        let mut requests = String::new();
        for number in 0..10 {
            // The first is the slowest: an answer that overtook it would be seen.
            let delay = 100 - 10 * number;
            let close = if number == 9 { "connection: close\r\n" } else { "" };
            requests.push_str(&format!(
                "GET /number-{number}?x-leno-delay={delay}ms HTTP/1.1\r\nhost: web\r\n{close}\r\n"
            ));
        }
        let answers = exchange(address, requests.as_bytes());
        let order: Vec<&str> = answers.split("\"path\":\"/number-").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(order.join(""), "0123456789", "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 10);
    }
    assert_eq!(peers.answered("web") - before, 20);
}

#[test]
fn an_upgrade_leaves_http_when_the_server_agrees_and_only_then() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    for address in [client.address("WEB_ADDR"), peers.edge("http")] {
        let mut stream = connect(address);
        // RFC 6455 1.3 has this key and its answer.
        stream
            .write_all(
                b"GET /ws HTTP/1.1\r\nhost: web\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .unwrap();
        let head = read_head(&mut stream).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(head.contains("upgrade: websocket"), "{head}");
        // A masked text frame "hi" with the mask 0, and its unmasked echo.
        stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, [0x81, 2, b'h', b'i']);

        // RFC 9110 7.8: a server may ignore an offer; the connection goes on as HTTP/1.1.
        let offered = "GET /kept HTTP/1.1\r\nhost: web\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                       http2-settings: AAMAAABkAAQAAP__\r\n\r\nGET /next HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        let answers = exchange(address, offered.as_bytes());
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Writes, and reads until the end.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
