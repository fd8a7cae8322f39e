//! The proxy's own pages: readiness, metrics, the application's probes, configuration, denials, drain.
//!
//! Invariant: nothing here is on the path of traffic, and no page tells a private key. Ports are Istio's (CONTRACTS section 4). In a
//! pod configuration and drain are for the pod itself (loopback), the others for the kubelet and for Prometheus.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use leno_telemetry::metrics::names;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bootstrap::{ADMIN_PORT, Capture, HEALTH_PORT, METRICS_PORT, PROMETHEUS_PORT},
    listen::{everywhere, listen},
    readiness,
    shared::{Phase, Shared},
};

/// Under this, `CONTAINER/livez`, `readyz` and `startupz`.
const APP_HEALTH: &str = "/app-health/";

/// A connection lasts no longer: longer than any probe should take.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks at series that nobody counts in.
const EXPIRE: Duration = Duration::from_secs(60);

/// Opens the ports and serves the pages until `stop`.
pub(crate) fn start(shared: &Arc<Shared>, tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<()> {
    for port in [ADMIN_PORT, METRICS_PORT, HEALTH_PORT, PROMETHEUS_PORT] {
        for (listener, pages) in open(shared, port)? {
            tasks.spawn(serve(shared.clone(), listener, pages, stop.clone()));
        }
    }
    let (shared, stop) = (shared.clone(), stop.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EXPIRE) => shared.telemetry.expire_idle(SystemTime::now()),
            }
        }
    });
    Ok(())
}

/// What a port shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// Everything.
    Admin,
    /// Readiness, metrics, the application's probes.
    Metrics,
    /// Metrics alone.
    Prometheus,
    /// Readiness alone: a gateway's load balancer shows this port to everybody.
    Health,
}

/// The sockets of one port. One family is enough.
fn open(shared: &Shared, port: u16) -> io::Result<Vec<(TcpListener, Pages)>> {
    let pages = match port {
        ADMIN_PORT => Pages::Admin,
        METRICS_PORT => Pages::Metrics,
        HEALTH_PORT => Pages::Health,
        _ => Pages::Prometheus,
    };
    let addresses = match (shared.bootstrap.capture, pages) {
        (Capture::ProxyProtocol, _) => vec![shared.bootstrap.own_socket(port)],
        (Capture::Captured, Pages::Admin) => vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)],
        (Capture::Captured, Pages::Metrics | Pages::Prometheus | Pages::Health) => everywhere(port).to_vec(),
    };
    let mut problem = None;
    let mut opened = Vec::new();
    for address in addresses {
        match listen(address) {
            Ok(listener) => opened.push((listener, pages)),
            Err(error) => problem = Some(error),
        }
    }
    match problem {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, pages: Pages, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                // Configuration and the drain are for whoever is on this machine or in this pod.
                Ok((_, remote)) if pages == Pages::Admin && !shared.bootstrap.is_own(remote.ip()) => continue,
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        tokio::spawn(connection(shared.clone(), stream, pages, stop.clone()));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, pages: Pages, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(page(&shared, &request, pages).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        served = tokio::time::timeout(LIMIT, serving) => {
            if let Ok(Err(error)) = served {
                tracing::trace!(%error, "an admin connection failed");
            }
        }
    }
}

async fn page(shared: &Arc<Shared>, request: &Request<Incoming>, pages: Pages) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let all = pages == Pages::Admin;
    match (request.method(), path) {
        (&Method::GET, "/ready" | "/healthz/ready") if pages != Pages::Prometheus => ready(shared),
        (&Method::GET, "/stats/prometheus" | "/metrics") if pages != Pages::Health => metrics(shared),
        (&Method::GET, _) if all => read(shared, path),
        (&Method::GET, _) if pages == Pages::Metrics && path.starts_with(APP_HEALTH) => {
            app_health(shared, request).await
        }
        (&Method::POST, "/drain" | "/drain_listeners") if all => {
            shared.reach(Phase::Draining);
            text(StatusCode::OK, "draining\n".to_owned())
        }
        _ => text(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    }
}

fn read(shared: &Arc<Shared>, path: &str) -> Response<Full<Bytes>> {
    match path {
        "/config_dump" => json_page(&config_dump(shared)),
        "/clusters" => json_page(&clusters(shared)),
        "/denials" => json_page(&json!(shared.telemetry.flight().latest(100))),
        "/certs" => json_page(&certificate(shared)),
        _ => match path.strip_prefix("/denials/").and_then(|id| shared.telemetry.flight().find(id)) {
            Some(denial) => json_page(&json!(*denial)),
            None => text(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
        },
    }
}

/// One of the application's probes: 200 when it is well, else 500 and why.
async fn app_health(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let name = request.uri().path().strip_prefix(APP_HEALTH).unwrap_or_default();
    let Some(probe) = shared.bootstrap.probes.get(name) else {
        return text(StatusCode::NOT_FOUND, "no such probe\n".to_owned());
    };
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    match probe.ask(shared.bootstrap.app_address, agent).await {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => {
            tracing::debug!(probe = name, why, "the application is not well");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n"))
        }
    }
}

/// Its first line is a state, the others say what is missing.
fn ready(shared: &Shared) -> Response<Full<Bytes>> {
    if shared.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n".to_owned());
    }
    let missing = readiness::missing(shared);
    if missing.is_empty() {
        text(StatusCode::OK, "LIVE\n".to_owned())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, format!("PRE_INITIALIZING\n{}\n", missing.join("\n")))
    }
}

fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    let registry = shared.telemetry.registry();
    if let Some(certificate) = shared.identity.certificate() {
        registry.gauge(&names::CERTIFICATE_EXPIRY, []).set(certificate.not_after().as_secs() as f64);
    }
    registry.gauge(&names::CONFIG_PUBLICATION, []).set(*shared.changed.borrow() as f64);
    let mut page = text(StatusCode::OK, shared.telemetry.render());
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    page
}

fn certificate(shared: &Shared) -> Value {
    match shared.identity.certificate() {
        None => Value::Null,
        Some(own) => json!({
            "identity": own.spiffe_id(),
            "serial": own.serial().to_string(),
            "not_before": own.not_before().as_secs(),
            "not_after": own.not_after().as_secs(),
        }),
    }
}

fn config_dump(shared: &Shared) -> Value {
    let tables = shared.tables.load();
    let index: Vec<_> = tables.index().collect();
    let loaded: Vec<Value> = index
        .iter()
        .filter(|entry| tables.is_loaded(&entry.service))
        .map(|entry| {
            let ports = entry.ports.iter().filter_map(|port| tables.loaded(&entry.service, port.port));
            let destination = ports.map(|loaded| loaded.destination).next();
            json!({
                "service": entry.service,
                "destination": destination.map(|destination| &**destination),
                "endpoints": tables.endpoints(&entry.service).map(|set| &**set),
            })
        })
        .collect();
    json!({
        "workload": shared.bootstrap.workload.to_string(),
        "publication": *shared.changed.borrow(),
        "certificate": certificate(shared),
        "listening": *shared.listening.lock(),
        "inbound": tables.inbound().map(|inbound| &*inbound.workload),
        "gateway": tables.gateway().map(|gateway| &**gateway.gateway()),
        "known_services": index.len(),
        "loaded": loaded,
        "rejected": tables.rejected().iter().map(|(key, why)| json!({"resource": key.to_string(), "why": why})).collect::<Vec<_>>(),
    })
}

fn clusters(shared: &Shared) -> Value {
    json!(shared.health.snapshot(shared.clock()))
}

fn json_page(value: &Value) -> Response<Full<Bytes>> {
    let mut page = text(StatusCode::OK, format!("{value:#}\n"));
    page.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    page
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut page = Response::new(Full::new(Bytes::from(text)));
    *page.status_mut() = status;
    page
}
