//! A stand-in application in a container: answers on ports, calls what its environment names, stops gracefully.
//!
//! On Kubernetes the pod says who it is: its host name, and the service account token that is mounted into it.

mod client;
mod udp;

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::{Parser, Subcommand};
use leno_lab::standin::{
    BehaviourFile, CallProtocol, Dialer, ListenSpec, StandIn, StandInProtocol, StandInSpec,
    calls::{from_environment, suggested_protocol},
};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A stand-in application: answers HTTP/1.1, HTTP/2, gRPC or TCP, and calls the services that its environment names.
#[derive(Parser)]
#[command(name = "leno-standin")]
struct Arguments {
    #[command(subcommand)]
    errand: Option<Errand>,
    /// Its `app`, which decides how it behaves
    #[arg(long, env = "APP", default_value = "standin")]
    app: String,
    /// Its version
    #[arg(long, env = "VERSION", default_value = "")]
    version: String,
    /// Ports that speak HTTP/1.1, HTTP/2 and gRPC; the default is PORT, else 8080
    #[arg(long, value_name = "PORT")]
    http: Vec<u16>,
    /// Ports with a TCP echo
    #[arg(long, value_name = "PORT")]
    tcp: Vec<u16>,
    /// A port with a TCP echo that speaks first
    #[arg(long, value_name = "PORT")]
    server_first: Option<u16>,
    /// A UDP port that answers each datagram with the address that it came from
    #[arg(long, value_name = "PORT")]
    udp: Option<u16>,
    /// Behave as the services of Bookinfo do, each as its `app` says
    #[arg(long)]
    bookinfo: bool,
    /// Note each request that has a `request-number`, when it is received, in a file of this folder
    #[arg(long, value_name = "FOLDER", env = "NOTES")]
    notes: Option<PathBuf>,
    /// Call what is no data store by gRPC rather than HTTP/1.1
    #[arg(long, env = "GRPC_CALLS")]
    grpc_calls: bool,
    /// End at once on SIGTERM, dropping what is under way
    #[arg(long, env = "CLOSE_AT_ONCE")]
    close_at_once: bool,
    /// How long requests may go on after SIGTERM
    #[arg(long, value_name = "SECONDS", env = "GRACE", default_value_t = 20)]
    grace: u64,
    /// Go on serving so long after SIGTERM, as an application does that does not hear of it
    #[arg(long, value_name = "SECONDS", env = "LINGER", default_value_t = 0)]
    linger: u64,
}

/// What it does instead of answering.
#[derive(Subcommand)]
enum Errand {
    Get(client::Get),
    Load(client::Requests),
    Watch(client::Watch),
    /// Send a datagram and print the answer; the exit code is 1 when there is none within 5 s
    AskUdp {
        address: String,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.context("no runtime").and_then(|runtime| runtime.block_on(serve(Arguments::parse()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(mut arguments: Arguments) -> anyhow::Result<()> {
    let (close_at_once, grace, linger) = (arguments.close_at_once, arguments.grace, arguments.linger);
    let mut terminate = signal(SignalKind::terminate())?;
    match arguments.errand.take() {
        Some(Errand::Get(get)) => return client::get(get).await,
        Some(Errand::Load(requests)) => return client::load(requests, terminate).await,
        Some(Errand::Watch(watch)) => return client::watch(watch, terminate).await,
        Some(Errand::AskUdp { address }) => return udp::ask(&address).await,
        None => {}
    }
    if let Some(port) = arguments.udp {
        tokio::spawn(udp::answer(udp::bind(port).await?));
    }
    let running = StandIn::start(spec(arguments)?, Dialer::by_system())?;
    terminate.recv().await;
    if !close_at_once {
        tokio::time::sleep(Duration::from_secs(linger)).await;
        running.stop(Duration::from_secs(grace)).await;
    }
    Ok(())
}

fn spec(arguments: Arguments) -> anyhow::Result<StandInSpec> {
    let Arguments {
        errand: _,
        app,
        version,
        mut http,
        tcp,
        server_first,
        udp: _,
        bookinfo,
        notes,
        grpc_calls,
        close_at_once: _,
        grace: _,
        linger: _,
    } = arguments;
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok());
    if http.is_empty() && tcp.is_empty() && server_first.is_none() {
        http.push(port.unwrap_or(8080));
    }
    let listen = |port: u16, protocol: StandInProtocol| ListenSpec {
        address: SocketAddr::from(([0, 0, 0, 0], port)),
        port_name: String::new(),
        protocol,
    };
    let mut listeners: Vec<ListenSpec> =
        http.into_iter().map(|port| listen(port, StandInProtocol::Auto)).collect();
    listeners.extend(tcp.into_iter().map(|port| listen(port, StandInProtocol::Tcp)));
    let banner = "220 leno-standin\r\n".to_owned();
    listeners.extend(server_first.map(|port| listen(port, StandInProtocol::TcpServerFirst(banner))));
    let (namespace, service_account) = account().unwrap_or_default();
    let variables: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| !is_of_kubernetes(name)).collect();
    let calls = from_environment(
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        |host, port| Some(protocol_of(host, port, grpc_calls)),
    );
    let behaviours = if bookinfo { BehaviourFile::bookinfo()? } else { BehaviourFile::default() };
    let name = std::env::var("HOSTNAME").unwrap_or_default();
    Ok(StandInSpec {
        behaviour: behaviours.for_workload(&namespace, &app, &version),
        notes: notes.map(|folder| folder.join(&name)),
        name,
        namespace,
        service_account,
        app,
        version,
        listeners,
        calls,
    })
}

/// What kubelet adds for each Service: `CART_SERVICE_HOST`, `CART_PORT_80_TCP_ADDR` and the like.
fn is_of_kubernetes(name: &str) -> bool {
    let of_a_port = |kind: &str| name.contains("_PORT_") && name.ends_with(kind);
    of_a_port("_TCP_ADDR") || of_a_port("_UDP_ADDR") || {
        let stem = name.strip_suffix("_SERVICE_HOST");
        stem.is_some_and(|stem| std::env::var_os(format!("{stem}_SERVICE_PORT")).is_some())
    }
}

/// A program does not see how a Service's port is declared, so it guesses as people do.
fn protocol_of(host: &str, port: u16, grpc: bool) -> CallProtocol {
    match suggested_protocol("", None, port) {
        CallProtocol::Http if host.contains("redis") => CallProtocol::Tcp,
        CallProtocol::Http if grpc => CallProtocol::Grpc,
        other => other,
    }
}

/// Namespace and service account, as the mounted token says; nobody relies on it, so nobody verifies it.
fn account() -> Option<(String, String)> {
    let token = fs::read_to_string(TOKEN).ok()?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let account = claims["sub"].as_str()?.strip_prefix("system:serviceaccount:")?;
    account.split_once(':').map(|(namespace, account)| (namespace.to_owned(), account.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn its_options_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
