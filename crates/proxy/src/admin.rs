//! The proxy's own pages, on its own address: readiness, metrics, configuration, denials, drain.
//!
//! Invariant: nothing here is on the path of traffic, and no page tells a private key. Ports are Istio's (CONTRACTS section 4).

use std::{
    convert::Infallible,
    io,
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
    bootstrap::{ADMIN_PORT, METRICS_PORT},
    proxy::{drain, is_ready},
    shared::Shared,
};

/// Istio's port for a proxy's own metrics.
const PROMETHEUS_PORT: u16 = 15090;
/// Istio's port for probes.
const HEALTH_PORT: u16 = 15021;

/// A page takes no longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at series that nobody counts in.
const EXPIRE: Duration = Duration::from_secs(60);

/// Opens the ports and serves the pages until `stop`.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> io::Result<()> {
    for port in [ADMIN_PORT, METRICS_PORT, HEALTH_PORT, PROMETHEUS_PORT] {
        let listener = TcpListener::bind(shared.bootstrap.own_socket(port)).await?;
        tasks.spawn(serve(shared.clone(), listener, port == ADMIN_PORT, stop.clone()));
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

async fn serve(shared: Arc<Shared>, listener: TcpListener, all: bool, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                // Configuration and the drain are for whoever is on this machine or in this pod.
                Ok((_, remote)) if all && !shared.bootstrap.is_own(remote.ip()) => continue,
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        tokio::spawn(connection(shared.clone(), stream, all, stop.clone()));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, all: bool, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(page(&shared, &request, all)) }
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

fn page(shared: &Arc<Shared>, request: &Request<Incoming>, all: bool) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET, "/ready" | "/healthz/ready") => ready(shared),
        (&Method::GET, "/stats/prometheus" | "/metrics") => metrics(shared),
        (&Method::GET, _) if all => read(shared, path),
        (&Method::POST, "/drain" | "/drain_listeners") if all => {
            let shared = shared.clone();
            tokio::spawn(async move { drain(&shared).await });
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

fn ready(shared: &Shared) -> Response<Full<Bytes>> {
    if shared.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n".to_owned());
    }
    if is_ready(shared) {
        text(StatusCode::OK, "LIVE\n".to_owned())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "PRE_INITIALIZING\n".to_owned())
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
