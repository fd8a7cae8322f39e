//! Tests of the crate from outside: checked-in code, exposition, export to a collector.

// The exemption for tests does not reach the functions beside them.
#![allow(clippy::unwrap_used)]

mod budget;
mod codegen;
mod collector;
mod exposition;

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use leno_model::SpiffeId;
use leno_telemetry::{
    ConnectionRecord, ConnectionSecurity, PeerMeta, Reporter, RequestRecord, ServiceMeta, Step,
};

/// `productpage` of the bookinfo sample in cluster `east`.
fn peer(workload: &str, app: &str, version: &str) -> Arc<PeerMeta> {
    let principal = format!("spiffe://cluster.local/ns/default/sa/bookinfo-{app}");
    Arc::new(PeerMeta {
        workload: workload.into(),
        namespace: "default".into(),
        canonical_service: app.into(),
        canonical_revision: version.into(),
        app: app.into(),
        version: version.into(),
        cluster: "east".into(),
        principal: SpiffeId::parse(&principal).ok(),
        region: "eu".into(),
        zone: "eu-1".into(),
    })
}

fn service(name: &str) -> Arc<ServiceMeta> {
    Arc::new(ServiceMeta {
        host: format!("{name}.default.svc.cluster.local").into(),
        name: name.into(),
        namespace: "default".into(),
    })
}

/// A successful request from `productpage` to `reviews`, as its server reports it.
fn request() -> RequestRecord {
    let (source, destination) =
        (peer("productpage-v1", "productpage", "v1"), peer("reviews-v1", "reviews", "v1"));
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let mut record =
        RequestRecord::new(Reporter::Destination, source, destination, service("reviews"), start);
    record.response_code = 200;
    record.security = ConnectionSecurity::MutualTls;
    record.bytes_received = 0;
    record.bytes_sent = 300;
    record.duration = Duration::from_micros(12_500);
    record.overhead.add(Step::Parse, 20_000);
    record.overhead.add(Step::Policy, 100_000);
    record.attempts = 1;
    record
}

/// A connection from `reviews` to `mongodb`, as its client reports it.
fn connection() -> ConnectionRecord {
    let (source, destination) = (peer("reviews-v1", "reviews", "v1"), peer("mongodb-v1", "mongodb", "v1"));
    let mut record =
        ConnectionRecord::new(Reporter::Source, source, destination, service("mongodb"), UNIX_EPOCH);
    record.security = ConnectionSecurity::MutualTls;
    record.bytes_received = 100;
    record.bytes_sent = 2_000;
    record
}
