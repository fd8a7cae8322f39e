//! An API server of HTTP and a map: what is applied is there, what is deleted is gone, and whatever a test says is refused.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use leno_cluster::{Access, Client, connect};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A path of the API, such as `/api/v1/namespaces/leno-system`.
type Path = String;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<Path, Value>,
    /// Method, path and query, in order.
    pub(crate) asked: Vec<String>,
    /// Answers instead of the usual: method, the path's beginning, status and message.
    pub(crate) refuses: Vec<(Method, &'static str, u16, &'static str)>,
    /// Answers to POSTs, which are reviews: made of what was posted.
    pub(crate) reviews: Option<fn(&str, &Value) -> Value>,
    /// Whether Deployments never become available.
    pub(crate) stuck: bool,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    folder: tempfile::TempDir,
}

impl Fake {
    pub(crate) async fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(state));
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
        let fake = Self { address, state, folder: tempfile::tempdir().unwrap() };
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "fake", "user": "me"}}],
        });
        std::fs::write(fake.folder.path().join("config"), kubeconfig.to_string()).unwrap();
        fake
    }

    pub(crate) fn access(&self) -> Access {
        Access { kubeconfig: Some(self.folder.path().join("config")), context: None }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.access()).await.unwrap()
    }

    pub(crate) fn paths(&self) -> Vec<Path> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let applies =
        request.headers().get(header::CONTENT_TYPE).is_some_and(|it| it == "application/apply-patch+yaml");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = state.lock().unwrap();
    state.asked.push(format!("{method} {path}?{query}"));
    let refused = state.refuses.iter().find(|(of, prefix, ..)| *of == method && path.starts_with(prefix));
    if let Some((.., code, message)) = refused {
        return failure(*code, message);
    }
    match method {
        Method::PATCH if applies && query.contains("fieldManager=leno-install") => {
            let mut object = made(body, state.stuck);
            if query.contains("dryRun=All") {
                let mut after = state.objects.get(&path).cloned().unwrap_or_default();
                merge(&mut after, object.take());
                return json_answer(200, &after);
            }
            state.objects.insert(path, object.clone());
            json_answer(200, &object)
        }
        Method::GET => match state.objects.get(&path) {
            Some(object) => json_answer(200, object),
            None => match state.list(&path, &query) {
                Some(list) => json_answer(200, &list),
                None => failure(404, "not found"),
            },
        },
        Method::DELETE => match state.objects.remove(&path) {
            Some(_) => json_answer(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            None => failure(404, "not found"),
        },
        Method::POST if state.reviews.is_some() => {
            let review = state.reviews.unwrap();
            json_answer(201, &review(&path, &body))
        }
        _ => failure(405, "the fake does not do this"),
    }
}

/// Laid over what is there, as far as server-side apply does that for maps.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// What is listed; an empty list is no error.
const LISTS: [&str; 14] = [
    "clusterrolebindings",
    "clusterroles",
    "configmaps",
    "customresourcedefinitions",
    "daemonsets",
    "deployments",
    "mutatingwebhookconfigurations",
    "namespaces",
    "poddisruptionbudgets",
    "pods",
    "rolebindings",
    "roles",
    "serviceaccounts",
    "services",
];

impl State {
    /// The objects of a path that ends in a plural, in one namespace or in all; those with every label that is asked for.
    fn list(&self, path: &str, query: &str) -> Option<Value> {
        let (start, plural) = path.rsplit_once('/')?;
        if !LISTS.contains(&plural) {
            return None;
        }
        let listed = |key: &&String| {
            let Some((folder, _)) = key.rsplit_once('/') else { return false };
            let everywhere = || {
                folder.starts_with(&format!("{start}/namespaces/")) && folder.ends_with(&format!("/{plural}"))
            };
            folder == path || everywhere()
        };
        let wanted =
            query.split('&').find_map(|part| part.strip_prefix("labelSelector=")).unwrap_or_default();
        let wanted = wanted.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let wanted: Vec<_> = wanted.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let has =
            |object: &&Value| wanted.iter().all(|(key, value)| object["metadata"]["labels"][key] == *value);
        let items: Vec<&Value> =
            self.objects.keys().filter(listed).map(|key| &self.objects[key]).filter(has).collect();
        Some(json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
    }
}

/// What controllers would make of it.
fn made(mut object: Value, stuck: bool) -> Value {
    object["metadata"]["generation"] = json!(1);
    if object["kind"] == "Deployment" {
        let replicas = object["spec"]["replicas"].clone();
        let available = if stuck { json!(0) } else { replicas.clone() };
        object["status"] = json!({
            "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": available,
        });
    }
    for hook in object["webhooks"].as_array_mut().into_iter().flatten() {
        hook["clientConfig"]["caBundle"] = json!("eA==");
    }
    object
}

fn failure(code: u16, message: &str) -> Response<Full<Bytes>> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "Unknown",
    };
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure"});
    status["code"] = json!(code);
    status["reason"] = json!(reason);
    status["message"] = json!(message);
    json_answer(code, &status)
}

fn json_answer(code: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
