//! A WebSocket client of another language.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    mesh::Peers,
    programs::{python_with, shown, succeeds},
};

#[test]
fn a_python_client_speaks_websocket_through_the_mesh_and_a_gateway() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/websocket_client.py");
    for address in [client.address("WEB_ADDR"), peers.edge("http")] {
        let mut python = Command::new(python_with("websockets"));
        let output = succeeds(python.args([script, &format!("ws://{address}/ws")]));
        let seen: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)));
        assert_eq!(seen["text"], "hello, Welt: \u{2603}");
        assert_eq!(seen["binary"], true);
        assert_eq!(seen["fragments"], "in three pieces");
        assert_eq!(seen["pong"], true);
        assert_eq!(seen["close"], json!([4001, "enough"]));
        assert_eq!(seen["too_large"], "closed");
    }
}
