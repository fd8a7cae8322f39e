//! `leno up`: a mesh from manifests, until it is interrupted.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{ArgGroup, Args, ValueEnum};
use leno_lab::{
    mesh::{AccessLog, ClusterPlan, Mesh, MeshPlan, MeshRecord, Tracing},
    standin::behaviour::parse_duration,
};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{Output, failure::Failure, write};

/// How long workloads may take to be ready until this says which are not.
const READY: Duration = Duration::from_secs(60);

/// Run a whole mesh on this machine from manifests
///
/// Every replica of every Deployment, StatefulSet, DaemonSet and Pod gets an identity, a proxy and a stand-in application.
/// Gateways listen on real ports, which are printed. Changed files are in force within a second; a broken change is refused
/// with its file and line, and what was in force stays. Ctrl-C drains everything.
#[derive(Args)]
#[command(
    group(ArgGroup::new("manifests").args(["files", "cluster"]).required(true).multiple(true)),
    after_help = "Examples:
  leno up -f shop.yaml -f routes/
  leno up --cluster west=shop,region=us-west --cluster east=shop,region=us-east,network=two
  helm template shop | leno up -f -"
)]
pub(crate) struct Arguments {
    /// Manifests of a single cluster: a file, a folder, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// A cluster: NAME=PATH[,PATH...][,region=R][,zone=Z][,network=N]; several make one mesh
    #[arg(long, value_name = "CLUSTER", conflicts_with = "files", value_parser = ClusterPlan::parse)]
    cluster: Vec<ClusterPlan>,
    /// Run each control plane and proxy as a process of its own
    #[arg(long)]
    processes: bool,
    /// What stand-in applications do beyond what their environment says (latency, errors, calls)
    #[arg(long, value_name = "FILE")]
    app_file: Option<PathBuf>,
    /// Lifetime of workloads' certificates
    #[arg(long, value_name = "TIME", default_value = "1440m", value_parser = duration)]
    certificate_ttl: Duration,
    /// How long a proxy that is told to go may finish what it has
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    drain: Duration,
    /// Threads that carry the traffic of all proxies of this process
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    workers: usize,
    /// What proxies log of each request and connection, to standard output; with --processes to the file `log` of each
    #[arg(long, value_name = "FORM", default_value = "off")]
    access_log: LogForm,
    /// Where spans go: `http://HOST:PORT` of an OTLP/gRPC collector
    #[arg(long, value_name = "URL", value_parser = collector)]
    traces: Option<String>,
    /// Share of the requests without a `traceparent` whose traces proxies start, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.01", value_parser = share, requires = "traces")]
    trace_share: f64,
}

/// The form of an access log's line.
#[derive(Clone, Copy, ValueEnum)]
enum LogForm {
    /// No log
    Off,
    /// Istio's default text
    Text,
    /// Istio's fields and ours
    Json,
}

impl From<LogForm> for AccessLog {
    fn from(form: LogForm) -> Self {
        match form {
            LogForm::Off => Self::Off,
            LogForm::Text => Self::Text,
            LogForm::Json => Self::Json,
        }
    }
}

/// The URL of a collector, which is called in plaintext.
fn collector(text: &str) -> Result<String, String> {
    let why = match text.parse::<http::Uri>() {
        Err(_) => "it is no URL",
        Ok(url) => match (url.scheme_str(), url.port_u16(), url.path(), url.query()) {
            (Some("http"), Some(_), "" | "/", None) => return Ok(text.to_owned()),
            (Some("http"), Some(_), ..) => "gRPC has a path of its own, so that this one would not be used",
            (Some("http"), None, ..) => "it names no port",
            (Some("https"), ..) => "spans are not sent over TLS",
            _ => "it does not begin with http://",
        },
    };
    Err(format!("{why}; a collector of OTLP/gRPC is http://HOST:PORT, most often of port 4317"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no number from 0 to 1"))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no time such as 20s or 10m"))
}

/// Runs it until it is interrupted.
pub(crate) fn up(arguments: Arguments, output: Output) -> Result<(), Failure> {
    more_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime can be made")
        .map_err(Failure::Usage)?;
    runtime.block_on(run(arguments, output))
}

async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let Arguments {
        files,
        cluster,
        processes,
        app_file,
        certificate_ttl,
        drain,
        workers,
        access_log,
        traces,
        trace_share,
    } = arguments;
    let clusters = if cluster.is_empty() { vec![ClusterPlan::new("local", files)] } else { cluster };
    let plan = MeshPlan {
        processes,
        app_file,
        certificate_ttl,
        drain,
        workers,
        access_log: access_log.into(),
        tracing: traces.map(|endpoint| Tracing { endpoint, sampling: trace_share }),
        ..MeshPlan::new(clusters)
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::usage)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::usage)?;
    let started = Instant::now();
    let mesh = Mesh::start(plan).await.map_err(Failure::usage)?;
    let mut changes = mesh.changes();
    let watching = async {
        let late = mesh.ready(READY).await;
        say_ready(&mesh.record(), started.elapsed(), late.as_ref().err().map(ToString::to_string), output);
        let mut said = BTreeSet::new();
        loop {
            say_gateways(&changes.borrow_and_update().clone(), &mut said, output);
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = watching => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if output == Output::Text {
        write::line("stopping: proxies finish what they have (interrupt again to end at once)");
    }
    tokio::select! {
        () = Box::pin(mesh.stop()) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn say_ready(record: &MeshRecord, after: Duration, late: Option<String>, output: Output) {
    let workloads = record.clusters.iter().map(|cluster| cluster.workloads.len()).sum::<usize>();
    let seconds = after.as_secs_f64();
    match output {
        Output::Json => {
            write::line(
                &json!({
                    "ready": late.is_none(), "late": late, "seconds": seconds, "workloads": workloads,
                    "clusters": record.clusters.len(), "mesh": record,
                })
                .to_string(),
            );
        }
        Output::Text => {
            for cluster in &record.clusters {
                let workloads = write::count(cluster.workloads.len(), "workload");
                write::line(&format!("cluster {}: {workloads}, API http://{}", cluster.name, cluster.api));
            }
            match late {
                Some(late) => write::line(&late),
                None => {
                    let workloads = write::count(workloads, "workload");
                    write::line(&format!("ready after {seconds:.1} s: {workloads}, each with its proxy"));
                }
            }
        }
    }
}

/// Says where gateways listen that were not told of before.
fn say_gateways(record: &MeshRecord, said: &mut BTreeSet<String>, output: Output) {
    for line in gateway_lines(record) {
        if said.insert(line.clone()) && output == Output::Text {
            write::line(&line);
        }
    }
}

/// Where gateways listen; of several clusters, also in which.
fn gateway_lines(record: &MeshRecord) -> Vec<String> {
    let several = record.clusters.len() > 1;
    let mut lines = Vec::new();
    for cluster in &record.clusters {
        let place = if several { format!("{}: ", cluster.name) } else { String::new() };
        for gateway in &cluster.gateways {
            for listener in &gateway.listeners {
                let host =
                    if listener.host == "*" { String::new() } else { format!(" for {}", listener.host) };
                let (url, object, name) = (listener.url(), &gateway.object, &listener.name);
                lines.push(format!("{place}{url} ({object} listener {name}{host})"));
            }
        }
    }
    lines
}

/// Each proxy has some sockets; hundreds of them need more than shells allow by default.
pub(crate) fn more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use leno_lab::mesh::{
        ClusterRecord,
        record::{GatewayRecord, ListenerRecord},
    };
    use leno_model::WorkloadId;

    use super::*;

    #[test]
    fn gateways_of_several_clusters_are_told_apart() {
        let cluster = |name: &str| ClusterRecord {
            name: name.to_owned(),
            api: ([127, 16, 0, 1], 15014).into(),
            control: ([127, 16, 0, 1], 15012).into(),
            gateways: vec![GatewayRecord {
                id: WorkloadId::new("shop", "edge-istio"),
                object: "Gateway shop/edge".to_owned(),
                admin: ([127, 16, 0, 5], 15000).into(),
                listeners: vec![ListenerRecord {
                    name: "http".to_owned(),
                    port: 80,
                    protocol: "http".to_owned(),
                    host: "*".to_owned(),
                    address: ([127, 16, 0, 5], 80).into(),
                }],
                ready: true,
            }],
            workloads: Vec::new(),
        };
        let mut record =
            MeshRecord { version: 1, pid: 1, supervisor: PathBuf::new(), clusters: vec![cluster("local")] };
        assert_eq!(gateway_lines(&record), ["http://127.16.0.5:80 (Gateway shop/edge listener http)"]);
        record.clusters = vec![cluster("west"), cluster("east")];
        let lines = gateway_lines(&record);
        assert!(lines[0].starts_with("west: http://") && lines[1].starts_with("east: http://"), "{lines:?}");
    }

    #[test]
    fn a_collector_is_a_url_that_spans_can_be_sent_to() {
        for good in ["http://127.0.0.1:4317", "http://collector.telemetry:4317/", "http://[::1]:4317"] {
            assert_eq!(collector(good).as_deref(), Ok(good));
        }
        for (wrong, why) in [
            ("nonsense", "does not begin with http://"),
            ("127.0.0.1:4317", "does not begin with http://"),
            ("ftp://x:21", "does not begin with http://"),
            ("http://", "no URL"),
            ("http://collector", "names no port"),
            ("https://collector:4317", "not sent over TLS"),
            ("http://collector:4318/v1/traces", "a path of its own"),
        ] {
            let said = collector(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
