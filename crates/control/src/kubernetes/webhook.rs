//! The injector: answers the API server's admission reviews of pods over HTTPS.
//!
//! Invariants: requests are bounded in number, size and time; whatever comes in, an answer goes out or the connection ends;
//! the namespace's labels that decide are those of the review's own moment, not older.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use leno_inject::review;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use crate::connections;

/// Connections at a time.
const CONNECTIONS: usize = 128;
/// Everything of one connection's arrival.
const ARRIVAL: Duration = Duration::from_secs(10);
/// How long the API server may take to show a namespace.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(3);
/// A larger review is no pod's.
const MAX_BODY: usize = 3 << 20;

/// The injector.
pub(crate) struct Webhook {
    pub(crate) cluster: Cluster,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
}

impl Webhook {
    /// Serves until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let Self { cluster, listener, tls } = self;
        let acceptor = TlsAcceptor::from(tls);
        let converse = |stream| Box::pin(converse(cluster.clone(), acceptor.clone(), stream));
        connections::each("webhook", CONNECTIONS, listener, stop, converse).await;
    }
}

async fn converse(cluster: Cluster, acceptor: TlsAcceptor, stream: TcpStream) {
    let stream = match timeout(ARRIVAL, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a handshake with the webhook failed");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let cluster = cluster.clone();
        async move { Ok::<_, Infallible>(answer(&cluster, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the webhook ended");
    }
}

async fn answer(cluster: &Cluster, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || !request.uri().path().starts_with("/inject") {
        return plain(StatusCode::NOT_FOUND, "admission reviews are posted to /inject");
    }
    let body = timeout(ARRIVAL, Limited::new(request.into_body(), MAX_BODY).collect()).await;
    let Ok(Ok(body)) = body else {
        return plain(StatusCode::BAD_REQUEST, "the body is too large or too slow");
    };
    let Ok(asked) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return plain(StatusCode::BAD_REQUEST, "the body is no JSON");
    };
    // Who cannot see the labels does not know whether the pod is enrolled: with 500 the webhook's failurePolicy decides.
    let Ok(namespace) = namespace(cluster, &asked).await else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the pod's namespace cannot be read");
    };
    let answered = review(&cluster.config.injection, &namespace, &asked);
    let mut response = Response::new(Full::new(Bytes::from(answered.to_string())));
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The pod's namespace, asked for: a watch may be behind a label that was set a moment ago.
async fn namespace(cluster: &Cluster, asked: &Value) -> Result<leno_inject::Namespace, ()> {
    let name = asked.pointer("/request/namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match timeout(NAMESPACE_PATIENCE, namespaces.get(&name)).await {
        Ok(Ok(found)) => {
            Ok(leno_inject::Namespace { name, labels: found.metadata.labels.unwrap_or_default() })
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, namespace = name, "a pod's namespace cannot be read");
            Err(())
        }
        Err(_) => {
            tracing::warn!(namespace = name, "a pod's namespace cannot be read in time");
            Err(())
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
