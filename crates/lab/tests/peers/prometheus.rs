//! A real Prometheus scrapes the proxies and is asked.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    mesh::{Peers, Place, page, page_if_any},
    programs::{Background, eventually, free_port, program, succeeds},
};

/// CONTRACTS section 1; a query answers them in another order.
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// Requests of the test, with a body of so many bytes each.
const REQUESTS: u32 = 40;
const BODY: usize = 1000;

#[test]
fn a_prometheus_reads_what_the_proxies_counted() {
    let peers = Peers::start(&[]);
    let client = peers.client();
    traffic(&client);
    let prometheus = Prometheus::start(&peers);

    for reporter in ["source", "destination"] {
        let of =
            format!("{{reporter=\"{reporter}\",destination_service_name=\"web\",request_protocol=\"http\"}}");
        let series = prometheus.eventually(&format!("istio_requests_total{of}"));
        assert_eq!(series.len(), 1, "{series:?}");
        assert_eq!(labels(&series[0]), http_labels());
        let metric = &series[0]["metric"];
        assert_eq!(number(&series[0]), f64::from(REQUESTS), "{metric}");
        let security = if reporter == "source" { "unknown" } else { "mutual_tls" };
        assert_eq!(metric["connection_security_policy"], security);
        for (label, value) in [
            ("source_principal", "spiffe://cluster.local/ns/peers/sa/client"),
            ("destination_principal", "spiffe://cluster.local/ns/peers/sa/web"),
            ("source_workload", "client"),
            ("destination_workload", "web"),
            ("source_version", "v1"),
            ("destination_service", "web.peers.svc.cluster.local"),
            ("destination_service_namespace", "peers"),
            ("request_protocol", "http"),
            ("response_flags", "-"),
        ] {
            assert_eq!(metric[label], value, "{label} by {reporter}: {metric}");
        }
        for histogram in
            ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"]
        {
            let count = prometheus.eventually(&format!("{histogram}_count{of}"));
            assert_eq!(number(&count[0]), f64::from(REQUESTS), "{histogram}");
            assert_eq!(labels(&count[0]), http_labels());
        }
        let bytes = prometheus.eventually(&format!("istio_request_bytes_sum{of}"));
        assert_eq!(number(&bytes[0]), f64::from(REQUESTS) * BODY as f64);
        let median =
            format!("histogram_quantile(0.5, sum by (le) (istio_request_duration_milliseconds_bucket{of}))");
        assert!(number(&prometheus.eventually(&median)[0]) > 0.0);

        let grpc = prometheus.eventually(&format!(
            "istio_requests_total{{reporter=\"{reporter}\",request_protocol=\"grpc\"}}"
        ));
        assert_eq!(labels(&grpc[0]), LABELS.into_iter().collect::<BTreeSet<_>>());
        assert_eq!((number(&grpc[0]), &grpc[0]["metric"]["grpc_response_status"]), (1.0, &"0".into()));

        let echo = format!("{{reporter=\"{reporter}\",destination_service_name=\"web\"}}");
        for (family, expected) in [
            ("istio_tcp_connections_opened_total", 1.0),
            ("istio_tcp_connections_closed_total", 1.0),
            // Istio counts what the client sent as received (istio/istio#32399 tells of the names).
            ("istio_tcp_received_bytes_total", 5.0),
            ("istio_tcp_sent_bytes_total", 5.0),
        ] {
            let series = prometheus.eventually(&format!("{family}{echo}"));
            assert_eq!(number(&series[0]), expected, "{family} by {reporter}");
            let without = ["response_code", "grpc_response_status"];
            let expected: BTreeSet<_> = LABELS.into_iter().filter(|label| !without.contains(label)).collect();
            assert_eq!(labels(&series[0]), expected, "{family}");
        }
    }
    let page = page(peers.workload("client").admin.unwrap(), "/stats/prometheus");
    assert!(
        page.contains(",grpc_response_status=\"\",response_flags="),
        "what is empty is there all the same: {page}"
    );
    let both = prometheus.eventually("leno_request_overhead_seconds_count{step=\"total\",hop=\"both\"}");
    assert!(both.iter().map(number).sum::<f64>() >= f64::from(REQUESTS), "{both:?}");
    assert!(!prometheus.eventually("istio_build{component=\"proxy\"}").is_empty());
}

/// What the numbers are of.
fn traffic(client: &Place) {
    let url = client.url("WEB_ADDR", "/echo");
    for _ in 0..REQUESTS {
        let body = "x".repeat(BODY);
        succeeds(Command::new(program("curl")).args(["-sSf", "--noproxy", "*", "-d", &body, &url]));
    }
    // An empty gRPC message.
    let empty = client.url("GRPC_ADDR", "/leno.standin.v1.Echo/Unary");
    let mut curl = Command::new(program("curl"));
    curl.args(["-sSf", "--noproxy", "*", "--http2-prior-knowledge", "-H", "content-type: application/grpc"]);
    let mut child = curl
        .args(["-H", "te: trailers", "-o", "/dev/null", "--data-binary", "@-", &empty])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &[0; 5]).unwrap();
    assert!(child.wait().unwrap().success());
    let mut stream = crate::raw::connect(client.address("ECHO_ADDR"));
    std::io::Write::write_all(&mut stream, b"12345").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut echoed = String::new();
    std::io::Read::read_to_string(&mut stream, &mut echoed).unwrap();
    assert_eq!(echoed, "12345");
}

struct Prometheus {
    address: SocketAddr,
    _process: Background,
}

impl Prometheus {
    fn start(peers: &Peers) -> Self {
        let folder = peers.folder().join("prometheus");
        fs::create_dir(&folder).unwrap();
        let cluster = peers.cluster();
        let admins = cluster.workloads.iter().filter_map(|workload| workload.admin);
        let admins = admins.chain(cluster.gateways.iter().map(|gateway| gateway.admin));
        let targets: Vec<String> = admins.map(|admin| format!("'{admin}'")).collect();
        let configuration = folder.join("prometheus.yml");
        let text = format!(
            "scrape_configs:\n- job_name: leno\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             metrics_path: /stats/prometheus\n  static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        fs::write(&configuration, text).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null());
        let process = Background::start(&mut command);
        let prometheus = Self { address, _process: process };
        let expected = targets.len();
        eventually("Prometheus scrapes every proxy", || {
            let up = prometheus.query("up")?;
            (up.len() == expected && up.iter().all(|up| number(up) > 0.0)).then_some(())
        });
        prometheus
    }

    /// The series of a query, as soon as there are any.
    fn eventually(&self, query: &str) -> Vec<Value> {
        eventually(query, || self.query(query).filter(|series| !series.is_empty()))
    }

    fn query(&self, query: &str) -> Option<Vec<Value>> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = page_if_any(self.address, &format!("/api/v1/query?query={escaped}"))?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["data"]["result"].as_array().cloned()
    }
}

/// The labels of HTTP's series: `grpc_response_status` is empty, which to Prometheus is absent.
fn http_labels() -> BTreeSet<&'static str> {
    LABELS.into_iter().filter(|label| *label != "grpc_response_status").collect()
}

/// The names of a series' labels that the proxy gave it.
fn labels(series: &Value) -> BTreeSet<&str> {
    let all = series["metric"].as_object().unwrap().keys().map(String::as_str);
    all.filter(|name| !["__name__", "job", "instance"].contains(name)).collect()
}

fn number(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}
