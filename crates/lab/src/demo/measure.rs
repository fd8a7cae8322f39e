//! What the demo asks the mesh itself: overhead, renewals, what proxies acknowledged, what stand-ins answered, plaintext.
//!
//! Invariant: a question that gets no answer counts as nothing measured, and says so to the caller.
//! Must not know: phases.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::scenario::PORT;
use crate::mesh::{Mesh, api, record::WorkloadRecord};

/// Questions under way at once.
const AT_ONCE: usize = 16;
const PLAIN_LIMIT: Duration = Duration::from_secs(5);

/// What both hops add to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Overhead {
    /// Median, from the proxies' own histograms.
    pub p50: f64,
    /// 99th percentile, from the same.
    pub p99: f64,
    /// What an outsider sees: the median through the mesh less the median straight to the application; kernel and network included.
    pub outside_p50: f64,
}

/// What stand-in applications counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StandIns {
    /// Requests that they answered, this question apart.
    pub(super) answered: u64,
    /// Calls that they made.
    pub(super) called: u64,
    /// How many said so.
    pub(super) asked: u64,
}

/// The mesh's workloads at present.
pub(super) fn workloads(mesh: &Mesh) -> Vec<WorkloadRecord> {
    mesh.record().clusters.into_iter().flat_map(|cluster| cluster.workloads).collect()
}

/// p50 and p99 in milliseconds of what both hops add, over all proxies.
pub(super) async fn overhead(mesh: &Mesh) -> (f64, f64) {
    let record = mesh.record();
    let gateways = record.clusters.iter().flat_map(|cluster| &cluster.gateways).map(|gateway| gateway.admin);
    let proxies: Vec<SocketAddr> = workloads(mesh).iter().filter_map(|it| it.admin).chain(gateways).collect();
    let texts =
        stream::iter(proxies).map(|admin| api::get(admin, "/stats/prometheus")).buffer_unordered(AT_ONCE);
    let mut buckets: BTreeMap<u64, (f64, u64)> = BTreeMap::new();
    let mut texts = Box::pin(texts);
    while let Some(text) = texts.next().await {
        let Ok(text) = text else { continue };
        for (bound, count) in overhead_buckets(&String::from_utf8_lossy(&text)) {
            let nanos = if bound.is_finite() { (bound * 1e9) as u64 } else { u64::MAX };
            buckets.entry(nanos).or_insert((bound, 0)).1 += count;
        }
    }
    let buckets: Vec<(f64, u64)> = buckets.into_values().collect();
    (quantile(&buckets, 0.5) * 1000.0, quantile(&buckets, 0.99) * 1000.0)
}

/// The cumulative buckets of both hops together.
fn overhead_buckets(text: &str) -> Vec<(f64, u64)> {
    let of_both = |line: &&str| {
        line.starts_with("leno_request_overhead_seconds_bucket{")
            && line.contains("step=\"total\"")
            && line.contains("hop=\"both\"")
    };
    let parse = |line: &str| {
        let bound = line.split("le=\"").nth(1)?.split('"').next()?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        Some((bound, line.rsplit(' ').next()?.parse::<f64>().ok()? as u64))
    };
    text.lines().filter(of_both).filter_map(parse).collect()
}

/// A quantile of cumulative buckets, as Prometheus interpolates it.
fn quantile(buckets: &[(f64, u64)], quantile: f64) -> f64 {
    let all = buckets.last().map_or(0, |(_, count)| *count);
    let rank = quantile * all as f64;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        let count = *count as f64;
        if count >= rank && all > 0 {
            let within = if count > below { (rank - below) / (count - below) } else { 0.0 };
            return if bound.is_finite() { low + (bound - low) * within } else { low };
        }
        (low, below) = (*bound, count);
    }
    low
}

/// Certificates that the control planes have issued since they started.
pub(super) async fn certificates_issued(mesh: &Mesh) -> u64 {
    let mut issued = 0;
    for cluster in mesh.record().clusters {
        let status = api::get_json(cluster.api, "/v1/status").await.unwrap_or(Value::Null);
        issued += status["certificates"]["issued"].as_u64().unwrap_or(0);
    }
    issued
}

/// Proxies that acknowledged the newest generation, and all that should have.
pub(super) async fn acknowledged(mesh: &Mesh) -> (u64, u64) {
    let (mut acknowledged, mut expected) = (0, 0);
    for cluster in mesh.record().clusters {
        let wanted = (cluster.workloads.len() + cluster.gateways.len()) as u64;
        let rollout = match api::get_json(cluster.api, "/v1/proxies").await {
            Ok(mut answer) => answer["rollout"].take(),
            Err(_) => Value::Null,
        };
        acknowledged += rollout["acknowledged"].as_u64().unwrap_or(0);
        expected += rollout["expected"].as_u64().unwrap_or(0).max(wanted);
    }
    (acknowledged, expected)
}

/// What all stand-ins counted so far.
pub(super) async fn stand_ins(mesh: &Mesh) -> StandIns {
    let apps = workloads(mesh).into_iter().map(|it| SocketAddr::new(it.app_address, PORT));
    let ask = |app| async move { api::get_json(app, "/leno/counters").await };
    let mut answers = Box::pin(stream::iter(apps).map(ask).buffer_unordered(AT_ONCE));
    let mut sum = StandIns::default();
    while let Some(answer) = answers.next().await {
        let Ok(counters) = answer else { continue };
        sum.asked += 1;
        sum.answered += counters["requests"].as_u64().unwrap_or(0);
        let calls = counters["calls"].as_object().into_iter().flatten();
        sum.called += calls
            .map(|(_, call)| call["succeeded"].as_u64().unwrap_or(0) + call["failed"].as_u64().unwrap_or(0))
            .sum::<u64>();
    }
    sum
}

/// What workloads did that were asked in plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plaintext {
    /// How many were asked.
    pub(super) asked: usize,
    /// How many took the connection: of one that does not, nothing is learned.
    pub(super) reached: usize,
    /// How many answered.
    pub(super) accepted: u64,
}

/// Asks workloads in plaintext, where only mutual TLS is allowed.
pub(super) async fn plaintext(mesh: &Mesh, at_most: usize) -> Plaintext {
    let all = workloads(mesh);
    let every = all.len().div_ceil(at_most.max(1)).max(1);
    let chosen: Vec<SocketAddr> =
        all.iter().step_by(every).map(|it| SocketAddr::new(it.address, PORT)).collect();
    let mut seen = Plaintext { asked: chosen.len(), ..Plaintext::default() };
    let mut answers = Box::pin(stream::iter(chosen).map(answers_plaintext).buffer_unordered(AT_ONCE));
    while let Some(answered) = answers.next().await {
        seen.reached += usize::from(answered.is_some());
        seen.accepted += u64::from(answered == Some(true));
    }
    seen
}

/// `None`: nobody took the connection.
async fn answers_plaintext(address: SocketAddr) -> Option<bool> {
    let mut stream = timeout(PLAIN_LIMIT, TcpStream::connect(address)).await.ok()?.ok()?;
    let exchange = async {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n").await?;
        stream.read(&mut [0; 64]).await
    };
    // Any byte is an answer; a refusal is a connection that ends without one.
    Some(matches!(timeout(PLAIN_LIMIT, exchange).await, Ok(Ok(read)) if read > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses_nothing() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let shut = tokio::spawn(async move { drop(taken.accept().await) });
        assert_eq!(answers_plaintext(address).await, Some(false));
        shut.await.unwrap();
        assert_eq!(answers_plaintext(address).await, None);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let text = "leno_request_overhead_seconds_bucket{step=\"total\",hop=\"client\",le=\"0.0001\"} 7\n\
                    leno_request_overhead_seconds_bucket{step=\"total\",hop=\"both\",le=\"0.0001\"} 50\n\
                    leno_request_overhead_seconds_bucket{step=\"total\",hop=\"both\",le=\"0.0005\"} 100\n\
                    leno_request_overhead_seconds_bucket{step=\"total\",hop=\"both\",le=\"+Inf\"} 100\n";
        let buckets = overhead_buckets(text);
        assert_eq!(buckets.len(), 3);
        assert!((quantile(&buckets, 0.5) - 0.0001).abs() < 1e-9);
        assert!((quantile(&buckets, 0.75) - 0.0003).abs() < 1e-9);
        assert!(quantile(&[], 0.5).abs() < 1e-9);
    }
}
