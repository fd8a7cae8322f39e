//! Access logs of proxies that are processes, as tools that know Istio's read them.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;

use crate::{
    mesh::Peers,
    programs::{eventually, program, succeeds},
};

/// The fields of Istio's JSON form, in their order (CONTRACTS section 9).
const FIELDS: [&str; 24] = [
    "start_time",
    "route_name",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "upstream_transport_failure_reason",
];

#[test]
fn the_json_form_has_istio_s_fields_in_their_order() {
    let peers = Peers::start(&["--access-log", "json"]);
    request(&peers);
    for (workload, cluster) in
        [("client", "outbound|80||web.peers.svc.cluster.local"), ("web", "inbound|8080||")]
    {
        let line = line(&peers, workload, |line| line.starts_with('{') && line.contains("/logged"));
        let places = FIELDS.map(|field| line.find(&format!("\"{field}\":")));
        assert!(places.iter().all(Option::is_some), "{line}");
        assert!(places.is_sorted(), "{line}");
        let entry: Value = serde_json::from_str(&line).unwrap();
        for (field, value) in [
            ("method", "POST"),
            ("path", "/logged?x-leno-delay=20ms"),
            ("protocol", "HTTP/1.1"),
            ("response_flags", "-"),
            ("response_code_details", "via_upstream"),
            ("user_agent", "a \"tool\""),
            ("request_id", "7f0e37a5-0d6c-4c52-8d9f-6f5c1a2b3c4d"),
            ("upstream_cluster", cluster),
        ] {
            assert_eq!(entry[field], value, "{field} of {workload}: {line}");
        }
        assert_eq!((&entry["response_code"], &entry["bytes_received"]), (&200.into(), &5.into()), "{line}");
        assert!(entry["bytes_sent"].as_u64().unwrap() > 100, "{line}");
        // The application waited 20 ms: the upstream's time, in text as Istio has it, and the whole are no less.
        assert!(entry["upstream_service_time"].as_str().unwrap().parse::<u64>().unwrap() >= 20, "{line}");
        assert!(entry["duration"].as_u64().unwrap() >= 20, "{line}");
        for field in [
            "upstream_host",
            "upstream_local_address",
            "downstream_local_address",
            "downstream_remote_address",
        ] {
            let address = entry[field].as_str().unwrap_or_else(|| panic!("{field} of {workload}: {line}"));
            assert!(address.parse::<SocketAddr>().is_ok(), "{field}: {line}");
        }
        assert!(entry["overhead_micros"].is_u64(), "what the mesh added: {line}");
        if workload == "client" {
            assert!(entry["peer_overhead_micros"].is_u64(), "and what the other hop added: {line}");
        } else {
            assert_eq!(entry["requested_server_name"], "outbound_.80_._.web.peers.svc.cluster.local");
        }
    }
}

#[test]
fn the_text_form_is_istio_s() {
    let peers = Peers::start(&["--access-log", "text"]);
    request(&peers);
    let line = line(&peers, "client", |line| line.starts_with("[20") && line.contains("/logged"));
    let fields = split(&line);
    assert_eq!(fields.len(), 22, "{line}");
    let expected = [
        (1, "POST /logged?x-leno-delay=20ms HTTP/1.1"),
        (2, "200"),
        (3, "-"),
        (4, "via_upstream"),
        (5, "-"),
        (6, "-"),
        (7, "5"),
        (12, "a \"tool\""),
        (13, "7f0e37a5-0d6c-4c52-8d9f-6f5c1a2b3c4d"),
        (14, "web.peers"),
        (16, "outbound|80||web.peers.svc.cluster.local"),
    ];
    for (index, text) in expected {
        assert_eq!(fields[index], text, "field {index} of {line}");
    }
    for number in [7, 8, 9, 10] {
        assert!(fields[number].parse::<u64>().is_ok(), "field {number} of {line}");
    }
    assert!(fields[0].starts_with("20") && fields[0].ends_with('Z'), "{line}");
    assert!(fields[15].parse::<SocketAddr>().is_ok(), "the upstream: {line}");
}

/// One request whose every part shows in the log.
fn request(peers: &Peers) {
    let client = peers.client();
    let mut curl = Command::new(program("curl"));
    curl.args(["-sSf", "--noproxy", "*", "-A", "a \"tool\"", "-d", "12345"]).args([
        "-H",
        "x-request-id: 7f0e37a5-0d6c-4c52-8d9f-6f5c1a2b3c4d",
        "-H",
        "host: web.peers",
    ]);
    succeeds(curl.arg(client.url("WEB_ADDR", "/logged?x-leno-delay=20ms")));
}

fn line(peers: &Peers, workload: &str, wanted: impl Fn(&str) -> bool) -> String {
    eventually("the line is written", || {
        peers.log(workload).lines().find(|line| wanted(line)).map(str::to_owned)
    })
}

/// The fields of a text line: `[...]`, `"..."` with escapes, or a word.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut rest) = (Vec::new(), String::new(), line.chars());
    let mut end = ' ';
    while let Some(character) = rest.next() {
        match (character, end) {
            ('[', ' ') if field.is_empty() => end = ']',
            ('"', ' ') if field.is_empty() => end = '"',
            ('\\', '"') => field.extend(rest.next()),
            (character, _) if character == end => {
                fields.push(std::mem::take(&mut field));
                if end != ' ' {
                    end = ' ';
                    rest.next();
                }
            }
            (character, _) => field.push(character),
        }
    }
    if !field.is_empty() {
        fields.push(field);
    }
    fields
}
