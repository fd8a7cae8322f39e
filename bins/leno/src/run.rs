//! `leno run`: a program of the user in the place of a stand-in application.
//!
//! The program dials services by addresses of lazy listeners here, each of which dials through the workload's proxy.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use leno_apis::closest;
use leno_lab::{
    mesh::{Adopted, AdoptedService, Adoption, AdoptionError, ClusterRecord, record::WorkloadRecord},
    standin::Dialer,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    failure::Failure,
    live::{self, Which},
    write,
};

/// Between two looks whether the program listens.
const LOOK: Duration = Duration::from_millis(200);
/// After this long, whoever waits is told where the program is expected to listen.
const EXPECTED: Duration = Duration::from_secs(3);
/// Names that are listed where none is like the one that was asked for.
const LISTED: usize = 5;

/// Run a program of yours in the place of a stand-in application
///
/// The program gets the environment of the workload's manifest, in which `HOST:PORT` of services (and `http://HOST`, whose port
/// is 80) is rewritten to addresses on this machine that lead through the workload's proxy; HTTP_PROXY for everything else;
/// PORT, a port that is free on every address of this machine; and LENO_APP_ADDRESS, the workload's own address. It may listen
/// on PORT of any address (0.0.0.0 and 127.0.0.1 do as well), or on the manifest's port of LENO_APP_ADDRESS or 127.0.0.1. The
/// stand-in comes back when the program ends; its exit code is handed on. Exit code 2 when no workload has the name, 3 when
/// programs are in the places of all its replicas.
#[derive(Args)]
#[command(after_help = "Example:
  leno run --workload shop/cart -- ./cart --verbose")]
pub(crate) struct Arguments {
    /// The workload: NAMESPACE/NAME of the Deployment or pod
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: String,
    /// The cluster, where several have the workload
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { workload, cluster, program } = arguments;
    live::block_on(async {
        let supervisor = live::mesh()?.supervisor;
        let clusters = live::clusters(&Which { cluster: cluster.clone() })?;
        if !workload.contains('/') {
            let why =
                format!("{workload} names no namespace: write NAMESPACE/NAME{}", hint(workload, &clusters));
            return Err(Failure::Usage(anyhow!(why)));
        }
        let adoption = Adoption::take(&supervisor, workload, cluster.as_deref()).await;
        let adoption = adoption.map_err(|error| {
            let what = format!("cannot take the place of {workload}");
            match error {
                AdoptionError::Unknown => {
                    Failure::Usage(anyhow!("{what}: {error}{}", hint(workload, &clusters)))
                }
                AdoptionError::Unreachable(_) | AdoptionError::Taken { .. } => {
                    Failure::Unreachable(anyhow::Error::new(error).context(what))
                }
            }
        })?;
        let Adopted { id, cluster, stand_ins, .. } = &adoption.adopted;
        let beside = match stand_ins {
            0 => "no stand-in of the workload is left".to_owned(),
            some => format!("requests go to {} of the workload, too", write::count(*some, "stand-in")),
        };
        write::note(&format!("in the place of {id} (cluster {cluster}); {beside}"));
        let code = serve(&adoption.adopted, program).await.map_err(Failure::Usage)?;
        drop(adoption);
        if code == 0 { Ok(()) } else { Err(Failure::Program(code)) }
    })
}

/// What may have been meant by a name that no workload has, or that lacks its namespace.
fn hint(name: &str, clusters: &[ClusterRecord]) -> String {
    let full = |workload: &WorkloadRecord| format!("{}/{}", workload.id.namespace, workload.owner);
    let all: BTreeSet<String> = clusters.iter().flat_map(|cluster| &cluster.workloads).map(full).collect();
    let of_that_name = all.iter().find(|full| full.split_once('/').is_some_and(|(_, short)| short == name));
    let meant = of_that_name.map(String::as_str).or_else(|| closest(name, all.iter().map(String::as_str)));
    if let Some(meant) = meant {
        return format!("; did you mean {meant}?");
    }
    let some: Vec<&str> = all.iter().take(LISTED).map(String::as_str).collect();
    let more = if all.len() > some.len() { ", ..." } else { "" };
    if some.is_empty() { String::new() } else { format!("; there are {}{more}", some.join(", ")) }
}

async fn serve(adopted: &Adopted, program: &[String]) -> anyhow::Result<u8> {
    let (name, arguments) = program.split_first().ok_or_else(|| anyhow!("no program was named"))?;
    let dialer =
        Dialer::through_proxy(adopted.outbound, Arc::new(|_, _| None)).from_source(adopted.app_address);
    let mut environment = Vec::new();
    for (variable, value) in &adopted.env {
        environment.push((variable.clone(), rewritten(value, adopted, &dialer).await?));
    }
    let proxy = format!("http://{}", adopted.http_proxy);
    let free = free_port().context("no port is free for the program")?;
    let mut child = Command::new(name)
        .args(arguments)
        .envs(environment)
        .env("PORT", free.to_string())
        .env("HTTP_PROXY", &proxy)
        .env("http_proxy", &proxy)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("LENO_APP_ADDRESS", adopted.app_address.to_string())
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    for (nth, port) in adopted.ports.iter().enumerate() {
        let own = SocketAddr::new(adopted.app_address, *port);
        let mut places = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, *port))];
        let mut expected = None;
        if nth == 0 {
            places.extend(
                [Ipv4Addr::LOCALHOST.into(), adopted.app_address].map(|ip| SocketAddr::new(ip, free)),
            );
            expected = Some(format!(
                "nothing listens on PORT {free} of any address, nor on port {port} of {} or 127.0.0.1: until the program does, \
                 requests to {} fail",
                adopted.app_address, adopted.id
            ));
        }
        tokio::spawn(reach(own, places, expected));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    // The terminal's interrupt goes to the program too, which decides what it means.
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let code = status?.code().and_then(|code| u8::try_from(code).ok());
                return Ok(code.unwrap_or(1));
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => child.start_kill()?,
        }
    }
}

/// A variable's value with `HOST:PORT` of a service replaced by a listener here.
async fn rewritten(value: &str, adopted: &Adopted, dialer: &Dialer) -> anyhow::Result<String> {
    let Some((place, host, port)) = address_in(value) else { return Ok(value.to_owned()) };
    let Some(service) = named(host, adopted) else { return Ok(value.to_owned()) };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no listener for a service")?;
    let here = listener.local_addr()?;
    tokio::spawn(forward(listener, dialer.clone(), service.address, port));
    Ok(format!("{}{here}{}", &value[..place.start], &value[place.end..]))
}

/// The address in a variable's value, and where it stands: `HOST:PORT`, of a URL too; `http://HOST` has port 80. A program that
/// calls `https://HOST` checks the name, so that it must stay.
fn address_in(value: &str) -> Option<(Range<usize>, &str, u16)> {
    let start = value.find("://").map_or(0, |at| at + 3);
    let end = value[start..].find('/').map_or(value.len(), |at| start + at);
    let authority = &value[start..end];
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None if value.starts_with("http://") => (authority, 80),
        None => return None,
    };
    Some((start..end, host.rsplit('@').next().unwrap_or(host), port))
}

fn named<'a>(host: &str, adopted: &'a Adopted) -> Option<&'a AdoptedService> {
    let host = host.strip_suffix(".cluster.local").unwrap_or(host);
    let host = host.strip_suffix(".svc").unwrap_or(host);
    let (name, namespace) = host.split_once('.').unwrap_or((host, adopted.id.namespace.as_str()));
    adopted.services.iter().find(|service| service.name == name && service.namespace == namespace)
}

/// Carries connections to a service through the proxy.
async fn forward(listener: TcpListener, dialer: Dialer, service: IpAddr, port: u16) {
    while let Ok((mut here, _)) = listener.accept().await {
        let dialer = dialer.clone();
        tokio::spawn(async move {
            match dialer.dial(&service.to_string(), port).await {
                Ok(mut there) => drop(copy_bidirectional(&mut here, &mut there).await),
                Err(error) => {
                    tracing::warn!(%service, port, error = &error as &dyn std::error::Error, "cannot be reached")
                }
            }
        });
    }
}

/// A port that no address of this machine uses: other workloads' stand-ins have the manifests' ports of theirs, and a program
/// that listens on 0.0.0.0 needs one of all addresses.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
}

/// Makes a program that listens in one of these places reachable at its workload's own address. `expected` is said when it
/// takes its time.
async fn reach(own: SocketAddr, places: Vec<SocketAddr>, mut expected: Option<String>) {
    let soon = Instant::now() + EXPECTED;
    let inside = loop {
        if TcpStream::connect(own).await.is_ok() {
            return;
        }
        if let Some(found) = first_that_listens(&places).await {
            break found;
        }
        if let Some(expected) = expected.take_if(|_| Instant::now() > soon) {
            write::note(&expected);
        }
        tokio::time::sleep(LOOK).await;
    };
    let Ok(listener) = TcpListener::bind(own).await else { return };
    while let Ok((mut outside, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Ok(mut inside) = TcpStream::connect(inside).await {
                // Either side may end as it likes.
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}

async fn first_that_listens(places: &[SocketAddr]) -> Option<SocketAddr> {
    for place in places {
        if TcpStream::connect(place).await.is_ok() {
            return Some(*place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_what_environments_say() {
        for (value, place, host, port) in [
            ("cart:7070", "cart:7070", "cart", 7070),
            ("http://api.shop:8080/v1", "api.shop:8080", "api.shop", 8080),
            ("http://api/", "api", "api", 80),
            ("http://api", "api", "api", 80),
            ("https://api:8443/", "api:8443", "api", 8443),
            ("redis://:secret@cache:6379/0", ":secret@cache:6379", "cache", 6379),
        ] {
            let (found, named, of) = address_in(value).unwrap_or_else(|| panic!("{value}"));
            assert_eq!((&value[found], named, of), (place, host, port), "{value}");
        }
        for value in ["", "cart", "true", "https://api/", "grpc://api", "/var/run:/tmp", "12:34:56x"] {
            assert!(address_in(value).is_none(), "{value}");
        }
    }
}
