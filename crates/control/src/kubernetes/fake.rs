//! An API server for tests: HTTP, and a map of objects by path.
//!
//! Must not know: what any object means, but that a Service of type LoadBalancer gets an address, unless a test says otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Cluster;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    /// Services get no address.
    unbalanced: bool,
    /// Paths that nobody may write.
    forbidden: BTreeSet<String>,
}

pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    client: Client,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(answer(&state, request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        Self { state, client: Client::try_from(config).unwrap() }
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let config = json!({
            "cluster": "west", "compat": "none", "injection": {}, "namespace": "leno-system", "network": "", "peers": [], "region": "",
            "gateways": {"class": true, "deploy": true, "secretNamespaces": ["*"]},
            "revision": "default", "tags": [], "trustDomain": "cluster.local",
        });
        let config = serde_json::from_value(config).unwrap();
        Cluster { client: self.client.clone(), config, pod: "leno-control-0".to_owned() }
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// Whether Services of type LoadBalancer get an address.
    pub(crate) fn balance(&self, balanced: bool) {
        self.state.lock().unwrap().unbalanced = !balanced;
    }

    /// Lets nobody write what is at a path.
    pub(crate) fn forbid(&self, path: &str) {
        self.state.lock().unwrap().forbidden.insert(path.to_owned());
    }

    /// Lets everybody write it again.
    pub(crate) fn permit(&self, path: &str) {
        self.state.lock().unwrap().forbidden.remove(path);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path);
    }

    /// The object at a path; `null` when there is none.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    /// The paths that were written, in order.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_apply = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = state.lock().unwrap();
    let at = path.strip_suffix("/status").unwrap_or(&path).to_owned();
    if method != Method::GET && state.forbidden.contains(&path) {
        return failure(403, "Forbidden", "exceeded quota");
    }
    if method == Method::POST {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        if state.objects.contains_key(&path) {
            return failure(409, "AlreadyExists", "it exists");
        }
        state.writes.push(path.clone());
        state.objects.insert(path, body.clone());
        return said(201, &body);
    }
    // Only what is applied is made by a patch.
    if method == Method::PATCH && (is_apply || state.objects.contains_key(&at)) {
        if body != json!({}) {
            state.writes.push(path);
        }
        let object = state.objects.entry(at.clone()).or_insert_with(|| json!({}));
        for (key, value) in body.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
    }
    let balanced = !state.unbalanced;
    if let Some(object) = state.objects.get_mut(&at)
        && balanced
        && object["spec"]["type"] == "LoadBalancer"
    {
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.18.1.100"}]}});
    }
    match state.objects.get(&at) {
        Some(object) => said(200, object),
        None => failure(404, "NotFound", "not found"),
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let body =
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    said(code, &body)
}

fn said(code: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
