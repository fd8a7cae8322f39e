//! What Prometheus reads: names, labels in their order, sums; read by `promtool` and by hand.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use leno_telemetry::{
    ConnectionSecurity, Reporter, RequestProtocol, Telemetry, TelemetryConfig, metrics::names,
};

use crate::{connection, request};

#[test]
fn requests_have_istios_labels_in_their_order() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    telemetry.shard().request(request());
    let wanted = "istio_requests_total{reporter=\"destination\",\
        source_workload=\"productpage-v1\",source_canonical_service=\"productpage\",\
        source_canonical_revision=\"v1\",source_workload_namespace=\"default\",\
        source_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-productpage\",\
        source_app=\"productpage\",source_version=\"v1\",source_cluster=\"east\",\
        destination_workload=\"reviews-v1\",destination_workload_namespace=\"default\",\
        destination_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-reviews\",\
        destination_app=\"reviews\",destination_version=\"v1\",\
        destination_service=\"reviews.default.svc.cluster.local\",\
        destination_canonical_service=\"reviews\",destination_canonical_revision=\"v1\",\
        destination_service_name=\"reviews\",destination_service_namespace=\"default\",\
        destination_cluster=\"east\",request_protocol=\"http\",response_code=\"200\",\
        grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"} 1";
    assert_eq!(line(&telemetry.render(), "istio_requests_total{"), wanted);
    assert_eq!(wanted.matches("=\"").count(), 25);
}

#[test]
fn tcp_drops_the_code_and_the_grpc_status_and_a_source_never_knows_the_security() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let shard = telemetry.shard();
    shard.connection_opened(&connection());
    shard.connection_progress(&connection(), 40, 1_500);
    shard.connection_closed(connection(), (40, 1_500));
    let page = telemetry.render();
    let opened = line(&page, "istio_tcp_connections_opened_total{");
    assert_eq!(opened.matches("=\"").count(), 23);
    assert!(!opened.contains("response_code") && !opened.contains("grpc_response_status"));
    let tail = "request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"unknown\"} 1";
    assert!(opened.ends_with(tail), "{opened}");
    assert!(line(&page, "istio_tcp_connections_closed_total{").ends_with("} 1"));
    assert!(line(&page, "istio_tcp_received_bytes_total{").ends_with("} 100"));
    assert!(line(&page, "istio_tcp_sent_bytes_total{").ends_with("} 2000"));
}

#[test]
fn histograms_add_up_over_shards() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let (one, two) = (telemetry.shard(), telemetry.shard());
    for shard in [&one, &two, &two] {
        shard.request(request());
    }
    let page = telemetry.render();
    assert!(line(&page, "istio_request_duration_milliseconds_sum").ends_with("} 37.500"));
    assert!(line(&page, "istio_request_duration_milliseconds_count").ends_with("} 3"));
    let buckets = buckets(&page, "istio_request_duration_milliseconds_bucket");
    assert_eq!(buckets.len(), 20);
    assert_eq!(buckets[3], ("10".to_owned(), 0));
    assert_eq!(buckets[4], ("25".to_owned(), 3));
    assert_eq!(buckets[19], ("+Inf".to_owned(), 3));
    assert!(line(&page, "istio_response_bytes_sum").ends_with("} 900"));
    assert_eq!(self::buckets(&page, "istio_request_bytes_bucket")[0], ("0.5".to_owned(), 3));
}

#[test]
fn grpc_messages_carry_no_security_and_are_added_up_without_it() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let shard = telemetry.shard();
    for security in [ConnectionSecurity::MutualTls, ConnectionSecurity::None] {
        let mut record = request();
        record.protocol = RequestProtocol::Grpc;
        record.grpc_status = Some(0);
        record.security = security;
        record.request_messages = 2;
        record.response_messages = 5;
        shard.request(record);
    }
    let page = telemetry.render();
    let messages: Vec<_> =
        page.lines().filter(|line| line.starts_with("istio_response_messages_total{")).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].ends_with("grpc_response_status=\"0\",response_flags=\"-\"} 10"), "{}", messages[0]);
    assert!(line(&page, "istio_request_messages_total{").ends_with("} 4"));
}

#[test]
fn overhead_is_shown_by_step_and_hop() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let shard = telemetry.shard();
    shard.request(request());
    let mut client = request();
    client.reporter = Reporter::Source;
    client.peer_overhead = Some(300);
    shard.request(client);
    let page = telemetry.render();
    let sum = |step, hop| {
        let prefix = format!("leno_request_overhead_seconds_sum{{step=\"{step}\",hop=\"{hop}\"}}");
        line(&page, &prefix).split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(sum("policy", "server"), "0.000100000");
    assert_eq!(sum("total", "server"), "0.000120000");
    assert_eq!(sum("total", "both"), "0.000420000");
    assert!(!page.contains("step=\"tls\""), "a step that was not measured is not shown");
}

#[test]
fn every_name_is_accepted_by_promtool() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let shard = telemetry.shard();
    let mut grpc = request();
    grpc.protocol = RequestProtocol::Grpc;
    shard.request(grpc);
    shard.request(request());
    shard.connection_opened(&connection());
    shard.connection_closed(connection(), (0, 0));
    let registry = telemetry.registry();
    registry.counter(&names::DENIALS, ["default/a\"b", "rbac"]).add(1);
    registry.counter(&names::RETRIES, ["connect-failure"]).add(1);
    registry.gauge(&names::CONNECTIONS_OPEN, ["downstream"]).add(3.0);
    registry.gauge(&names::CERTIFICATE_EXPIRY, []).set(1.8e9);
    registry.histogram(&names::NETWORK_PROBE, ["loopback"]).observe(0.000_02);
    let page = telemetry.render();

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: promtool is not installed (Debian: prometheus), the exposition was not parsed");
        return;
    };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    // 3: parsed, with style remarks. Istio's milliseconds are the only ones, and a contract.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let remarks = said.lines().filter(|line| !line.contains("istio_request_duration_milliseconds"));
    assert_eq!(remarks.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn a_scrape_beside_recording_never_goes_backwards_and_loses_nothing() {
    const REQUESTS: u64 = 20_000;
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let recorders: Vec<_> = (0..2)
            .map(|_| {
                let shard = telemetry.shard();
                scope.spawn(move || {
                    let record = request();
                    (0..REQUESTS).for_each(|_| shard.request(record.clone()));
                })
            })
            .collect();
        let scraper = scope.spawn(|| {
            let mut last = 0;
            while !is_done.load(Ordering::Relaxed) {
                let now = total(&telemetry.render());
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        recorders.into_iter().for_each(|recorder| recorder.join().unwrap());
        is_done.store(true, Ordering::Relaxed);
        scraper.join().unwrap();
    });
    assert_eq!(total(&telemetry.render()), 2 * REQUESTS);
}

fn total(page: &str) -> u64 {
    let samples = page.lines().filter(|line| line.starts_with("istio_requests_total{"));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn line<'a>(page: &'a str, prefix: &str) -> &'a str {
    let found = page.lines().find(|line| line.starts_with(prefix));
    found.unwrap_or_else(|| panic!("no {prefix} in\n{page}"))
}

fn buckets(page: &str, name: &str) -> Vec<(String, u64)> {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines
        .map(|line| {
            let (_, rest) = line.rsplit_once("le=\"").unwrap();
            let (bound, count) = rest.split_once("\"} ").unwrap();
            (bound.to_owned(), count.parse().unwrap())
        })
        .collect()
}
