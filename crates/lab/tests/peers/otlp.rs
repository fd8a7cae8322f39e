//! A real OTLP collector takes the proxies' spans.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    mesh::Peers,
    programs::{Background, eventually, free_port, program, python_with, succeeds, text},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn spans_of_both_proxies_continue_a_trace_in_order() {
    let collector = Collector::start();
    let peers = Peers::start(&["--traces", &collector.url, "--trace-share", "0"]);
    let client = peers.client();
    // W3C Trace Context: 01 is sampled, 00 is not, and without the header nothing was asked of a share of 0.
    let asked = |trace: &str, flags: &str, path: &str| {
        let header = format!("traceparent: 00-{trace}-{PARENT}-{flags}");
        let mut curl = Command::new(program("curl"));
        curl.args([
            "-sSf",
            "--noproxy",
            "*",
            "-H",
            "x-leno-echo: true",
            "-H",
            &header,
            "-H",
            "tracestate: a=b",
        ]);
        let output = succeeds(curl.arg(client.url("WEB_ADDR", path)));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["request"]["headers"].take()
    };
    asked(&"a".repeat(32), "00", "/unsampled");
    succeeds(Command::new(program("curl")).args([
        "-sSf",
        "--noproxy",
        "*",
        &client.url("WEB_ADDR", "/untraced"),
    ]));
    let seen = asked(TRACE, "01", "/traced?token=secret");

    let spans = eventually("both proxies' spans arrive", || {
        let spans = collector.spans();
        (spans.len() >= 2).then_some(spans)
    });
    assert_eq!(spans.len(), 2, "what is not sampled is not sent: {spans:#?}");
    let of =
        |kind: &str| spans.iter().find(|span| span["Kind"] == kind).unwrap_or_else(|| panic!("{spans:#?}"));
    let (caller, callee) = (of("SPAN_KIND_CLIENT"), of("SPAN_KIND_SERVER"));
    assert_eq!((&*caller["Trace ID"], &*callee["Trace ID"]), (TRACE, TRACE));
    assert_eq!(caller["Parent ID"], PARENT);
    assert_eq!(callee["Parent ID"], caller["ID"], "the server's span is below the client's");
    let onwards = format!("00-{TRACE}-{}-01", callee["ID"]);
    assert_eq!(seen["traceparent"], Value::from(onwards), "and the application's is below that");
    assert_eq!(seen["tracestate"], "a=b");
    let time = |span: &Span, name: &str| span[name].parse::<u64>().unwrap();
    assert!(time(caller, "Start time") <= time(callee, "Start time"), "{spans:#?}");
    assert!(time(callee, "End time") <= time(caller, "End time"), "{spans:#?}");
    for (span, service) in [(caller, "client"), (callee, "web")] {
        assert_eq!(span["istio.canonical_service"], format!("Str({service})"));
        assert_eq!(span["url.path"], "Str(/traced)", "without the query");
        assert_eq!(span["http.response.status_code"], "Int(200)");
        assert!(number(&span["leno.overhead_micros"]) > 0, "{span:#?}");
    }
    assert!(number(&caller["leno.peer_overhead_micros"]) > 0, "what the other hop added: {caller:#?}");
}

type Span = BTreeMap<String, String>;

fn number(attribute: &str) -> u64 {
    attribute.trim_start_matches("Int(").trim_end_matches(')').parse().unwrap()
}

/// rotel, which writes what it receives.
struct Collector {
    url: String,
    log: PathBuf,
    _folder: tempfile::TempDir,
    _process: Background,
}

impl Collector {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let code = "import rotel, pathlib; print(pathlib.Path(rotel.__file__).parent / 'rotel-agent')";
        let agent = text(&succeeds(Command::new(python_with("rotel")).args(["-c", code])));
        let grpc = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(agent.trim());
        command
            .args(["start", "--otlp-grpc-endpoint", &grpc])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", free_port())])
            .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed", "--exporter", "blackhole"])
            .stdout(fs::File::create(&log).unwrap())
            .stderr(Stdio::inherit());
        let process = Background::start(&mut command);
        eventually("the collector listens", || std::net::TcpStream::connect(&grpc).ok());
        Self { url: format!("http://{grpc}"), log, _folder: folder, _process: process }
    }

    /// What it has received: ids, times and attributes by name.
    fn spans(&self) -> Vec<Span> {
        let log = fs::read_to_string(&self.log).unwrap();
        let blocks = log.split("\nSpan #").skip(1);
        let pairs = |block: &str| {
            let named =
                block.lines().filter_map(|line| line.trim().trim_start_matches("-> ").split_once(':'));
            named.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
        };
        blocks.map(pairs).collect()
    }
}
