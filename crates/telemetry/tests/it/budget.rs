//! Cardinality (PAINS P21): the budget and the expiry of idle series.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use leno_telemetry::{PeerMeta, Telemetry, TelemetryConfig};

use crate::{connection, request, service};

#[test]
fn ten_thousand_hosts_stay_within_the_budget() {
    let telemetry = Telemetry::new(TelemetryConfig { series_budget: 50, ..TelemetryConfig::default() });
    let shard = telemetry.shard();
    for index in 0..10_000 {
        let mut record = request();
        record.service = service(&format!("random-{index}"));
        shard.request(record);
    }
    let page = telemetry.render();
    let lines: Vec<_> = page.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert_eq!(lines.len(), 51);
    let overflow = lines.iter().find(|line| line.contains("destination_service=\"overflow\"")).unwrap();
    assert!(overflow.ends_with("} 9950") && overflow.contains("reporter=\"destination\""), "{overflow}");
    assert!(page.contains("leno_metric_series_overflow_total 9950\n"));
    assert!(page.contains("leno_metric_series 51\n"));
}

#[test]
fn what_is_new_beside_a_spent_budget_is_counted_again_when_there_is_room() {
    let idle = Duration::from_secs(60);
    let config = TelemetryConfig { series_budget: 1, series_idle_after: idle, ..TelemetryConfig::default() };
    let telemetry = Telemetry::new(config);
    let shard = telemetry.shard();
    shard.request(request());
    let mut late = request();
    late.service = service("late");
    shard.request(late.clone());
    for minute in 0..4 {
        telemetry.expire_idle(at(minute));
    }
    shard.request(late);
    let page = telemetry.render();
    assert!(page.contains("destination_service=\"late.default.svc.cluster.local\""), "{page}");
    assert!(!page.contains("destination_service=\"reviews.default.svc.cluster.local\""));
}

#[test]
fn an_idle_series_ends_and_a_used_one_stays() {
    let idle = Duration::from_secs(120);
    let telemetry = Telemetry::new(TelemetryConfig { series_idle_after: idle, ..TelemetryConfig::default() });
    let shard = telemetry.shard();
    let record = request();
    shard.request(record.clone());
    shard.connection_opened(&connection());
    for minute in 0..10 {
        shard.request(record.clone());
        telemetry.expire_idle(at(minute));
    }
    let page = telemetry.render();
    assert!(page.contains("istio_requests_total{"));
    assert!(!page.contains("istio_tcp_connections_opened_total{"), "{page}");
    let total = page.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    assert!(total.ends_with("} 11"), "{total}");
}

#[test]
fn a_series_that_is_used_between_the_two_sweeps_loses_nothing() {
    let idle = Duration::from_secs(60);
    let telemetry = Telemetry::new(TelemetryConfig { series_idle_after: idle, ..TelemetryConfig::default() });
    let shard = telemetry.shard();
    let record = request();
    shard.request(record.clone());
    telemetry.expire_idle(at(0));
    telemetry.expire_idle(at(1));
    shard.request(record.clone());
    telemetry.expire_idle(at(2));
    telemetry.expire_idle(at(2));
    shard.request(record);
    let page = telemetry.render();
    let total = page.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    assert!(total.ends_with("} 3"), "{total}");
}

#[test]
fn equal_peers_are_shared() {
    let shard = Telemetry::new(TelemetryConfig::default()).shard();
    let peer = || PeerMeta { workload: "a".into(), ..PeerMeta::default() };
    assert!(Arc::ptr_eq(&shard.intern(peer()), &shard.intern(peer())));
}

fn at(minute: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(minute * 60)
}
